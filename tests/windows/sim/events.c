/* Event records: their payloads, the rundown, and the noise that a real machine adds. Everything needs g_lock. */
#include "etwsim.h"

#define HEADER_FLAGS (EVENT_HEADER_FLAG_64_BIT_HEADER | EVENT_HEADER_FLAG_PROCESSOR_INDEX)
#define FOREIGN_PID 70004u /* Wine's own ids are far smaller */
#define OTHER_PID 70008u
#define FOREIGN_TID 70012u
#define SYSTEM_PID 4u

static const GUID image_guid = {0x2cb15d1d, 0x5fc1, 0x11d2, {0xab, 0xe1, 0x00, 0xa0, 0xc9, 0x11, 0xf5, 0x18}};
static const GUID system_config_guid = {0x01853a65, 0x418f, 0x4f36, {0xae, 0xfc, 0xdc, 0x0f, 0x1d, 0x2f, 0xd2, 0x35}};

static LONGLONG first_filetime, first_counter, frequency;

/* Drive letters and the volumes behind them, as QueryDosDeviceW names them. */
static struct {
    WCHAR letter;
    WCHAR device[64];
} volumes[26];
static int volume_count;

/* One image event's payload, version 2 and 3; the path follows. */
#pragma pack(push, 1)
typedef struct image_payload {
    ULONGLONG base, size;
    ULONG pid, checksum, stamp;
    BYTE signature_level, signature_type;
    USHORT reserved0;
    ULONGLONG default_base;
    ULONG reserved[4];
} image_payload;
#pragma pack(pop)
_Static_assert(sizeof(image_payload) == 56, "the path of a 64-bit payload starts at 56");

void events_init(void)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    QueryPerformanceCounter((LARGE_INTEGER *)&first_counter);
    QueryPerformanceFrequency((LARGE_INTEGER *)&frequency);
    first_filetime = ((LONGLONG)now.dwHighDateTime << 32) | now.dwLowDateTime;
}

LONGLONG counter_frequency(void)
{
    return frequency;
}

LONGLONG filetime_of(LONGLONG counter)
{
    LONGLONG passed = counter - first_counter;
    LONGLONG seconds = passed / frequency, rest = passed % frequency;
    return first_filetime + seconds * 10000000 + rest * 10000000 / frequency;
}

/* Wine 8.0 names the volumes \Device\HarddiskVolume<n>, as Windows does; where a Wine does not, ours are fixed. */
static void find_volumes(void)
{
    WCHAR drive[3] = L"?:", target[64];
    DWORD present = GetLogicalDrives();
    for (int i = 0; i < 26; i++) {
        if (!(present & (1u << i)))
            continue;
        drive[0] = (WCHAR)(L'A' + i);
        volumes[volume_count].letter = drive[0];
        if (QueryDosDeviceW(drive, target, 64) && !wcsncmp(target, L"\\Device\\Harddisk", 16))
            wcscpy(volumes[volume_count].device, target);
        else
            _snwprintf(volumes[volume_count].device, 64, L"\\Device\\HarddiskVolume%u", drive[0] == L'C' ? 3 : 9);
        volume_count++;
    }
}

/* C:\x becomes \Device\HarddiskVolume1\x; in version 2 a load from C: becomes \x; what sim_spell says comes first.
 * Returns the length. */
static int kernel_path(const WCHAR *path, int opcode, WCHAR *result, int room)
{
    const WCHAR *device = L"";
    for (int i = 0; i < g_config.spelling_count; i++) {
        size_t length = wcslen(g_config.spellings[i].prefix);
        if (_wcsnicmp(path, g_config.spellings[i].prefix, length))
            continue;
        return _snwprintf(result, (size_t)room, L"%ls%ls", g_config.spellings[i].kernel, path + length);
    }
    if (!volume_count)
        find_volumes();
    if (path[0] && path[1] == L':') {
        WCHAR letter = path[0] >= L'a' ? (WCHAR)(path[0] - 32) : path[0];
        for (int i = 0; i < volume_count; i++)
            if (volumes[i].letter == letter && !(g_config.version == 2 && letter == L'C' && opcode == OP_LOAD))
                device = volumes[i].device;
        path += 2;
    }
    if ((int)(wcslen(device) + wcslen(path)) >= room)
        return 0;
    wcscpy(result, device);
    wcscat(result, path);
    return (int)wcslen(result);
}

static void list_add(event_list *list, event *item)
{
    item->next = NULL;
    if (list->tail)
        list->tail->next = item;
    else
        list->head = item;
    list->tail = item;
    list->count++;
}

void list_free(event_list *list)
{
    while (list->head) {
        event *item = list->head;
        list->head = item->next;
        HeapFree(g_heap, 0, item);
    }
    memset(list, 0, sizeof *list);
}

/* Puts a whole list behind another one, and leaves it empty. */
static void list_move(event_list *to, event_list *from)
{
    if (!from->head)
        return;
    if (to->tail)
        to->tail->next = from->head;
    else
        to->head = from->head;
    to->tail = from->tail;
    to->count += from->count;
    memset(from, 0, sizeof *from);
}

void session_flush(session *which)
{
    which->info.buffers_written += which->pending.head != NULL;
    list_move(&which->ready, &which->pending);
    list_move(&which->ready, &which->held);
    list_move(&which->held, &which->second);
    which->next_flush = GetTickCount64() + 1000ull * (which->info.flush_timer ? which->info.flush_timer : 1);
    consumer_wake(which->consumer);
}

void event_append(session *to, const GUID *provider, int version, int opcode, int flags, ULONG pid, ULONG tid,
                  const void *payload, int length)
{
    static unsigned turn;
    event *item = HeapAlloc(g_heap, HEAP_ZERO_MEMORY, sizeof *item + (SIZE_T)length);
    EVENT_HEADER *header = &item->record.EventHeader;
    QueryPerformanceCounter((LARGE_INTEGER *)&item->counter);
    header->Size = (USHORT)(sizeof *header + (SIZE_T)length);
    header->Flags = (USHORT)flags;
    header->ThreadId = tid;
    header->ProcessId = pid;
    header->ProviderId = *provider;
    header->EventDescriptor.Version = (UCHAR)version;
    header->EventDescriptor.Opcode = (UCHAR)opcode;
    item->record.BufferContext.LoggerId = (USHORT)to->info.handle;
    item->record.UserDataLength = (USHORT)length;
    memcpy(item->payload, payload, (SIZE_T)length);
    if (g_config.queues > 1 && turn++ % 2) {
        item->record.BufferContext.ProcessorIndex = 1;
        list_add(&to->second, item);
    } else {
        list_add(&to->pending, item);
    }
}

static void append_image(session *to, int opcode, const image *item, const WCHAR *path, int length, ULONG header_pid,
                         ULONG header_tid, ULONG payload_pid)
{
    BYTE buffer[sizeof(image_payload) + 2 * 2048];
    image_payload *payload = (image_payload *)buffer;
    int bytes = (length + 1) * 2;
    if (bytes > 2 * 2048)
        return;
    memset(payload, 0, sizeof *payload);
    payload->base = (ULONGLONG)(ULONG_PTR)item->base;
    payload->size = item->size;
    payload->pid = payload_pid;
    payload->checksum = item->checksum;
    payload->stamp = item->stamp;
    payload->default_base = item->default_base;
    if (g_config.version >= 3 && (opcode == OP_LOAD || opcode == OP_DC_START)) {
        payload->signature_level = 12;
        payload->signature_type = 1;
    }
    memcpy(buffer + sizeof *payload, path, (SIZE_T)bytes - 2);
    memset(buffer + sizeof *payload + bytes - 2, 0, 2);
    event_append(to, &image_guid, g_config.version, opcode, HEADER_FLAGS, header_pid, header_tid, buffer,
                 (int)sizeof *payload + bytes);
}

static void append_invented(session *to, int opcode, ULONGLONG base, const WCHAR *path, ULONG header_pid,
                            ULONG header_tid, ULONG payload_pid)
{
    image item = {(BYTE *)(ULONG_PTR)base, 0x21000, 0x1a2b3, 0x5f3c2b1a, base, NULL, 0, 0, 1};
    append_image(to, opcode, &item, path, (int)wcslen(path), header_pid, header_tid, payload_pid);
}

static void append_pointer(session *to, int opcode)
{
    ULONGLONG pointer = 0xfffff80312345000ull;
    event_append(to, &image_guid, 2, opcode, HEADER_FLAGS, NO_ID, NO_ID, &pointer, sizeof pointer);
}

/* Around each event of ours another process loads and drops an image at the same base: who matches a load with an
 * unload by the base alone calls ours failed. Every eighth time a driver comes along. */
static void noise_around(session *to, const image *item, int before)
{
    static unsigned turn;
    ULONGLONG base = (ULONGLONG)(ULONG_PTR)item->base;
    if (!g_config.noise)
        return;
    append_invented(to, before ? OP_LOAD : OP_UNLOAD, base, L"\\Device\\HarddiskVolume3\\Windows\\System32\\KBDFR.DLL",
                    FOREIGN_PID, FOREIGN_TID, FOREIGN_PID);
    if (!before && turn++ % 8 == 0)
        append_invented(to, OP_LOAD, 0xfffff80340000000ull + turn * 0x100000ull,
                        L"\\SystemRoot\\System32\\drivers\\usbhub3.sys", SYSTEM_PID, 8, 0);
}

void emit_image(int opcode, const image *item)
{
    WCHAR path[2048];
    int length = -1;
    for (int i = 0; i < MAX_SESSIONS; i++) {
        session *to = &g_sessions[i];
        if (to->state != SESSION_RUNNING || !(to->info.enable_flags & FLAG_IMAGE_LOAD))
            continue;
        if (length < 0)
            length = kernel_path(item->path, opcode, path, 2048);
        noise_around(to, item, 1);
        append_image(to, opcode, item, path, length, GetCurrentProcessId(), GetCurrentThreadId(),
                     GetCurrentProcessId());
        noise_around(to, item, 0);
    }
}

typedef struct rundown {
    session *to;
    int opcode;
} rundown;

static void rundown_image(const image *item, void *context)
{
    WCHAR path[2048];
    rundown *run = context;
    int length = kernel_path(item->path, run->opcode, path, 2048);
    append_image(run->to, run->opcode, item, path, length, NO_ID, NO_ID, GetCurrentProcessId());
}

/* Drivers first, in the name of the thread that starts or stops the session; then the processes, without ids. */
static void emit_rundown(session *to, int opcode)
{
    static const WCHAR *const drivers[] = {
        L"\\SystemRoot\\system32\\ntoskrnl.exe",
        L"\\SystemRoot\\System32\\drivers\\fltmgr.sys",
        L"\\??\\C:\\Windows\\System32\\win32k.sys",
    };
    static const WCHAR *const others[] = {
        L"\\Device\\HarddiskVolume3\\Windows\\explorer.exe",
        L"\\Device\\HarddiskVolume3\\Windows\\System32\\ntdll.dll",
        L"\\Device\\HarddiskVolume3\\Windows\\System32\\kernel32.dll",
        L"\\Device\\Mup\\server\\share\\tools\\python311.dll",
    };
    rundown run = {to, opcode};
    if (!g_config.rundown)
        return;
    if (g_config.noise) {
        for (int i = 0; i < 3; i++)
            append_invented(to, opcode, 0xfffff80300000000ull + i * 0x1000000ull, drivers[i], GetCurrentProcessId(),
                            GetCurrentThreadId(), 0);
        for (int i = 0; i < 4; i++)
            append_invented(to, opcode, 0x7ff800000000ull + i * 0x1000000ull, others[i], NO_ID, NO_ID, OTHER_PID);
        for (int i = 0; g_config.noise > 1 && i < g_config.noise; i++)
            append_invented(to, opcode, 0x7ff900000000ull + i * 0x100000ull, others[1], NO_ID, NO_ID, FOREIGN_PID);
    }
    images_each(rundown_image, &run);
}

/* The configuration of the machine that a kernel session writes at its start, in the name of the controller. */
static void emit_configuration(session *to)
{
    struct {
        ULONG mhz, processors, memory, page_size, granularity;
        WCHAR computer[256], domain[134];
        ULONGLONG hyper_threading;
    } cpu = {2400, 8, 16384, 4096, 65536, L"BUILDBOX", L"WORKGROUP", 0};
    static const WCHAR platform[] = L"Simulated board\0C:\\Windows\\System32\\not-an-image.dll";
    event_append(to, &system_config_guid, 3, 10, HEADER_FLAGS, GetCurrentProcessId(), GetCurrentThreadId(), &cpu,
                 sizeof cpu);
    event_append(to, &system_config_guid, 3, 25, HEADER_FLAGS, GetCurrentProcessId(), GetCurrentThreadId(), platform,
                 sizeof platform);
}

void emit_start(session *to)
{
    if (!(to->info.enable_flags & FLAG_IMAGE_LOAD))
        return;
    if (g_config.noise) {
        if (!(to->info.enable_flags & FLAG_NO_SYSCONFIG))
            emit_configuration(to);
        append_pointer(to, 33);
        append_pointer(to, 34);
    }
    emit_rundown(to, OP_DC_START);
}

void emit_end(session *to)
{
    if (to->info.enable_flags & FLAG_IMAGE_LOAD)
        emit_rundown(to, OP_DC_END);
}
