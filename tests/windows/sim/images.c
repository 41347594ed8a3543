/*
 * What is mapped into this process.
 *
 * The real kernel logs an image when its section is mapped or unmapped. The same moment is seen here by hooks on
 * the system call thunks of ntdll. Measured in Wine 8.0:
 *
 * - Every image that the loader maps passes through NtMapViewOfSection, Wine's own DLLs too: the top one first,
 *   then its dependencies in the order of its import table, depth first. That is the kernel's order. The loader's
 *   LOADED notifications come after that, dependencies first; here they only say that a load has succeeded.
 * - FreeLibrary, and a DllMain that returns FALSE, unmap through NtUnmapViewOfSection, the top one first.
 * - A load that fails for a missing dependency gives no notification, and Wine never undoes it: what it had mapped
 *   stays mapped for good, dependencies stay in the list of modules ("several more dangling references left" says
 *   its source). Windows unmaps all of it at once. So the call of LdrLoadDll is hooked as well, and when it fails
 *   what Wine forgot is undone: dependencies in the order of their loading, the top one last, which is the order
 *   of events that was seen on Windows. In memory the top one remains, so a second attempt gets another base; and a
 *   module that was loaded before keeps the reference that the failed load took on it.
 * - The image's path comes from the view (MemoryMappedFilenameInformation): \??\C:\windows\system32\x.dll.
 */
#include "etwsim.h"

#define THUNK_SIZE 32
#define MAPPED_FILE_NAME 2 /* MemoryMappedFilenameInformation */

/* mov r10,rcx / mov eax,N / test byte [0x7ffe0308],1 / jne +3 / syscall / ret / ... / call [0x7ffe1000] / ret.
 * All of it is position independent, so that a copy works from anywhere. Zero marks the number of the call. */
static const BYTE thunk_pattern[THUNK_SIZE] = {
    0x4c, 0x8b, 0xd1, 0xb8, 0x00, 0x00, 0x00, 0x00, 0xf6, 0x04, 0x25, 0x08, 0x03, 0xfe, 0x7f, 0x01,
    0x75, 0x03, 0x0f, 0x05, 0xc3, 0xeb, 0x01, 0xc3, 0xff, 0x14, 0x25, 0x00, 0x10, 0xfe, 0x7f, 0xc3,
};

typedef NTSTATUS(NTAPI *map_function)(HANDLE section, HANDLE process, void **base, ULONG_PTR zero_bits, SIZE_T commit,
                                      LARGE_INTEGER *offset, SIZE_T *size, ULONG inherit, ULONG type, ULONG protect);
typedef NTSTATUS(NTAPI *map_ex_function)(HANDLE section, HANDLE process, void **base, LARGE_INTEGER *offset,
                                         SIZE_T *size, ULONG type, ULONG protect, void *parameters, ULONG count);
typedef NTSTATUS(NTAPI *unmap_function)(HANDLE process, void *base);
typedef NTSTATUS(NTAPI *unmap_ex_function)(HANDLE process, void *base, ULONG flags);
typedef NTSTATUS(NTAPI *load_function)(WCHAR *path, ULONG *flags, UNICODE_STRING *name, void **module);
typedef NTSTATUS(NTAPI *unload_function)(void *module);
typedef NTSTATUS(NTAPI *query_function)(HANDLE, const void *, int, void *, SIZE_T, SIZE_T *);

typedef struct notification {
    ULONG flags;
    const UNICODE_STRING *full_name;
    const UNICODE_STRING *base_name;
    void *base;
    ULONG size;
} notification;
typedef void(CALLBACK *notify_function)(ULONG reason, const notification *data, void *context);
typedef NTSTATUS(NTAPI *register_function)(ULONG flags, notify_function call, void *context, void **cookie);

static map_function real_map;
static map_ex_function real_map_ex;
static unmap_function real_unmap;
static unmap_ex_function real_unmap_ex;
static load_function real_load;
static unload_function unload_dll;
static query_function query_memory;
static int hooked;

static image *images;
static int image_count, image_room;
static ULONG last_serial;

int images_hooked(void)
{
    return hooked;
}

void images_each(void (*call)(const image *item, void *context), void *context)
{
    for (int i = 0; i < image_count; i++)
        call(&images[i], context);
}

static int index_of(const void *address)
{
    for (int i = 0; i < image_count; i++)
        if ((const BYTE *)address >= images[i].base && (const BYTE *)address < images[i].base + images[i].size)
            return i;
    return -1;
}

static WCHAR *copy_path(const WCHAR *path, SIZE_T bytes)
{
    WCHAR *copy = HeapAlloc(g_heap, HEAP_ZERO_MEMORY, bytes + sizeof(WCHAR));
    memcpy(copy, path, bytes);
    return copy;
}

/* C:\x.dll from \??\C:\x.dll, which is what Wine knows about a view. */
static WCHAR *mapped_path(const void *base)
{
    BYTE buffer[4096];
    const UNICODE_STRING *name = (const UNICODE_STRING *)buffer;
    if (query_memory(GetCurrentProcess(), base, MAPPED_FILE_NAME, buffer, sizeof buffer, NULL) < 0)
        return NULL;
    if (name->Length > 8 && !memcmp(name->Buffer, L"\\??\\", 8))
        return copy_path(name->Buffer + 4, name->Length - 8);
    return copy_path(name->Buffer, name->Length);
}

static int is_image(const void *base)
{
    MEMORY_BASIC_INFORMATION info;
    const IMAGE_DOS_HEADER *dos = base;
    const IMAGE_NT_HEADERS *nt;
    if (query_memory(GetCurrentProcess(), base, 0, &info, sizeof info, NULL) < 0)
        return 0;
    if (info.Type != MEM_IMAGE || info.State != MEM_COMMIT || dos->e_magic != IMAGE_DOS_SIGNATURE)
        return 0;
    nt = (const IMAGE_NT_HEADERS *)((const BYTE *)base + dos->e_lfanew);
    return nt->Signature == IMAGE_NT_SIGNATURE;
}

static void drop(int index)
{
    HeapFree(g_heap, 0, images[index].path);
    memmove(&images[index], &images[index + 1], (SIZE_T)(--image_count - index) * sizeof *images);
}

static image *add(void *base, WCHAR *path)
{
    const IMAGE_DOS_HEADER *dos = base;
    const IMAGE_NT_HEADERS *nt = (const IMAGE_NT_HEADERS *)((const BYTE *)base + dos->e_lfanew);
    image *item;
    if (image_count == image_room) {
        image_room = image_room ? 2 * image_room : 256;
        images = images ? HeapReAlloc(g_heap, 0, images, (SIZE_T)image_room * sizeof *images)
                        : HeapAlloc(g_heap, 0, (SIZE_T)image_room * sizeof *images);
    }
    item = &images[image_count++];
    item->base = base;
    item->size = nt->OptionalHeader.SizeOfImage;
    item->checksum = nt->OptionalHeader.CheckSum;
    item->stamp = nt->FileHeader.TimeDateStamp;
    item->default_base = nt->OptionalHeader.ImageBase;
    item->path = path;
    item->serial = ++last_serial;
    item->tid = GetCurrentThreadId();
    item->finished = 0;
    return item;
}

/* The name of the notification serves only where the view itself has none. */
static void loaded(void *base, const UNICODE_STRING *name, int new_view)
{
    DWORD error = GetLastError();
    EnterCriticalSection(&g_lock);
    if (is_image(base)) {
        int stale = index_of(base);
        if (stale >= 0 && new_view) { /* its unmapping was not seen */
            emit_image(OP_UNLOAD, &images[stale]);
            drop(stale);
            stale = -1;
        }
        if (stale < 0) {
            WCHAR *path = mapped_path(base);
            if (!path && name)
                path = copy_path(name->Buffer, name->Length);
            if (path)
                emit_image(OP_LOAD, add(base, path));
        }
        if (!new_view && index_of(base) >= 0)
            images[index_of(base)].finished = 1;
    }
    LeaveCriticalSection(&g_lock);
    SetLastError(error);
}

static void unloaded(const void *address)
{
    int index = index_of(address);
    if (index < 0)
        return;
    emit_image(OP_UNLOAD, &images[index]);
    drop(index);
}

static NTSTATUS NTAPI hook_map(HANDLE section, HANDLE process, void **base, ULONG_PTR zero_bits, SIZE_T commit,
                               LARGE_INTEGER *offset, SIZE_T *size, ULONG inherit, ULONG type, ULONG protect)
{
    NTSTATUS status = real_map(section, process, base, zero_bits, commit, offset, size, inherit, type, protect);
    if (status >= 0 && process == GetCurrentProcess())
        loaded(*base, NULL, 1);
    return status;
}

static NTSTATUS NTAPI hook_map_ex(HANDLE section, HANDLE process, void **base, LARGE_INTEGER *offset, SIZE_T *size,
                                  ULONG type, ULONG protect, void *parameters, ULONG count)
{
    NTSTATUS status = real_map_ex(section, process, base, offset, size, type, protect, parameters, count);
    if (status >= 0 && process == GetCurrentProcess())
        loaded(*base, NULL, 1);
    return status;
}

/* The lock is held over the call itself: else another thread could map at the same base before the table knows. */
static NTSTATUS NTAPI hook_unmap(HANDLE process, void *base)
{
    NTSTATUS status;
    if (process != GetCurrentProcess())
        return real_unmap(process, base);
    EnterCriticalSection(&g_lock);
    status = real_unmap(process, base);
    if (status >= 0)
        unloaded(base);
    LeaveCriticalSection(&g_lock);
    return status;
}

static NTSTATUS NTAPI hook_unmap_ex(HANDLE process, void *base, ULONG flags)
{
    NTSTATUS status;
    if (process != GetCurrentProcess())
        return real_unmap_ex(process, base, flags);
    EnterCriticalSection(&g_lock);
    status = real_unmap_ex(process, base, flags);
    if (status >= 0)
        unloaded(base);
    LeaveCriticalSection(&g_lock);
    return status;
}

static void CALLBACK notified(ULONG reason, const notification *data, void *context)
{
    (void)context;
    if (reason == 1) {
        loaded(data->base, data->full_name, 0);
    } else if (!hooked) { /* with hooks, the unmapping that follows is the event */
        EnterCriticalSection(&g_lock);
        unloaded(data->base);
        LeaveCriticalSection(&g_lock);
    }
}

/* The images of a load of this thread that is under way, in the order of mapping. */
static int unfinished(ULONG since, void **bases, int room)
{
    int count = 0;
    EnterCriticalSection(&g_lock);
    for (int i = 0; i < image_count && count < room; i++)
        if (images[i].serial > since && images[i].tid == GetCurrentThreadId() && !images[i].finished)
            bases[count++] = images[i].base;
    LeaveCriticalSection(&g_lock);
    return count;
}

/* A dependency in the list of modules is really unloaded, and the hooks see it. What failed itself is in no list
 * any more, and must stay mapped: Wine has forgotten it but for its thread local storage, which each new thread
 * copies. It only counts as unmapped; it may also be gone already, with the one before it. */
static void undo(void *base)
{
    if (unload_dll(base) >= 0)
        return;
    EnterCriticalSection(&g_lock);
    unloaded(base);
    LeaveCriticalSection(&g_lock);
}

static NTSTATUS NTAPI hook_load(WCHAR *path, ULONG *flags, UNICODE_STRING *name, void **module)
{
    void *bases[256];
    ULONG since = last_serial;
    NTSTATUS status = real_load(path, flags, name, module);
    if (status < 0) {
        int count = unfinished(since, bases, 256);
        for (int i = 1; i < count; i++)
            undo(bases[i]);
        if (count)
            undo(bases[0]);
    }
    return status;
}

static int is_thunk(const BYTE *code)
{
    for (int i = 0; i < THUNK_SIZE; i++)
        if (code[i] != thunk_pattern[i] && i != 4 && i != 5)
            return 0;
    return 1;
}

/* Moves the thunk to `copy` and puts a jump to `hook` in its place. */
static void hook_thunk(BYTE *thunk, BYTE *copy, void *hook, void *real_pointer)
{
    DWORD old;
    BYTE jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov rax,hook / jmp rax */
    memcpy(copy, thunk, THUNK_SIZE);
    memcpy(jump + 2, &hook, sizeof hook);
    memcpy(real_pointer, &copy, sizeof copy); /* before the jump: the next call may come at once */
    VirtualProtect(thunk, sizeof jump, PAGE_EXECUTE_READWRITE, &old);
    memcpy(thunk, jump, sizeof jump);
    VirtualProtect(thunk, sizeof jump, old, &old);
    FlushInstructionCache(GetCurrentProcess(), thunk, sizeof jump);
}

static void install_hooks(HMODULE ntdll)
{
    static const char *const names[4] = {"NtMapViewOfSection", "NtMapViewOfSectionEx", "NtUnmapViewOfSection",
                                         "NtUnmapViewOfSectionEx"};
    void *hooks[4] = {(void *)hook_map, (void *)hook_map_ex, (void *)hook_unmap, (void *)hook_unmap_ex};
    void *reals[4] = {&real_map, &real_map_ex, &real_unmap, &real_unmap_ex};
    BYTE *thunks[4];
    BYTE *room = VirtualAlloc(NULL, 4096, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    for (int i = 0; i < 4; i++) {
        thunks[i] = (BYTE *)(void *)GetProcAddress(ntdll, names[i]);
        if (thunks[i] ? !is_thunk(thunks[i]) : !strstr(names[i], "Ex"))
            return; /* not the Wine we know: all or nothing, so that loads and unloads stay in step */
    }
    for (int i = 0; i < 4; i++)
        if (thunks[i])
            hook_thunk(thunks[i], room + i * THUNK_SIZE, hooks[i], reals[i]);
    hooked = 1;
}

/* LdrLoadDll is no thunk: its one caller is kernelbase.dll, through the import table. */
static void hook_loader(HMODULE ntdll)
{
    void *wanted = (void *)GetProcAddress(ntdll, "LdrLoadDll");
    BYTE *base = (BYTE *)GetModuleHandleW(L"kernelbase.dll");
    const IMAGE_NT_HEADERS *nt = (const IMAGE_NT_HEADERS *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    const IMAGE_DATA_DIRECTORY *table = &nt->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    const IMAGE_IMPORT_DESCRIPTOR *import = (const IMAGE_IMPORT_DESCRIPTOR *)(base + table->VirtualAddress);
    real_load = (load_function)wanted;
    unload_dll = (unload_function)(void *)GetProcAddress(ntdll, "LdrUnloadDll");
    for (; import->Name; import++)
        for (void **slot = (void **)(base + import->FirstThunk); *slot; slot++)
            if (*slot == wanted) {
                DWORD old;
                VirtualProtect(slot, sizeof *slot, PAGE_READWRITE, &old);
                *slot = (void *)hook_load;
                VirtualProtect(slot, sizeof *slot, old, &old);
            }
}

static void add_loaded_modules(void)
{
    LIST_ENTRY *head = &NtCurrentTeb()->ProcessEnvironmentBlock->Ldr->InMemoryOrderModuleList;
    for (LIST_ENTRY *at = head->Flink; at != head; at = at->Flink) {
        LDR_DATA_TABLE_ENTRY *entry = CONTAINING_RECORD(at, LDR_DATA_TABLE_ENTRY, InMemoryOrderLinks);
        add(entry->DllBase, copy_path(entry->FullDllName.Buffer, entry->FullDllName.Length))->finished = 1;
    }
}

/* Runs in DllMain: the loader lock keeps the list of modules still until the hooks are in place. */
void images_init(void)
{
    HMODULE ntdll = GetModuleHandleW(L"ntdll.dll");
    register_function notify = (register_function)(void *)GetProcAddress(ntdll, "LdrRegisterDllNotification");
    void *cookie;
    query_memory = (query_function)(void *)GetProcAddress(ntdll, "NtQueryVirtualMemory");
    add_loaded_modules();
    install_hooks(ntdll);
    if (hooked)
        hook_loader(ntdll);
    if (notify)
        notify(0, notified, NULL, &cookie);
}
