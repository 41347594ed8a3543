/* The controller's side of a session: start, query, update, flush, stop. */
#include "etwsim.h"

static const GUID no_guid;
static const WCHAR kernel_logger[] = L"NT Kernel Logger";
const GUID g_system_trace_guid = {0x9e814aad, 0x3204, 0x11d2, {0x9a, 0x82, 0x00, 0x60, 0x08, 0xa8, 0x69, 0x39}};
static const GUID system_process_guid = {
    0x151f55dc, 0x467d, 0x471f, {0x83, 0xb5, 0x5f, 0x88, 0x9d, 0x46, 0xff, 0x66}};

/* The name of a stopped session stays taken until its last consumer has left: for so many more starts. */
static WCHAR last_stopped[MAX_NAME + 1];
static int lingering;

/* ---- sessions of this process ---- */

HANDLE stop_event(ULONGLONG handle)
{
    WCHAR name[64];
    _snwprintf(name, 64, L"Local\\dlltracer-sim-stop-%08x%08x", (ULONG)(handle >> 32), (ULONG)handle);
    return CreateEventW(NULL, TRUE, FALSE, name);
}

session *local_session(ULONGLONG handle)
{
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (g_sessions[i].state != SESSION_FREE && g_sessions[i].info.handle == handle)
            return &g_sessions[i];
    return NULL;
}

void session_release(session *which)
{
    if (which->state != SESSION_STOPPED || which->consumer)
        return;
    list_free(&which->pending);
    list_free(&which->second);
    list_free(&which->held);
    list_free(&which->ready);
    memset(which, 0, sizeof *which);
}

void session_finish(session *which)
{
    if (which->state != SESSION_RUNNING)
        return;
    emit_end(which);
    session_flush(which);
    session_flush(which); /* what the second processor still held */
    which->state = SESSION_STOPPED;
    consumer_wake(which->consumer);
    session_release(which);
}

void stop_seen(ULONGLONG handle)
{
    session *which;
    EnterCriticalSection(&g_lock);
    which = local_session(handle);
    if (which)
        session_finish(which);
    LeaveCriticalSection(&g_lock);
}

/* Needs the registry lock. Whoever started it: its file goes, and its consumer wakes up. */
static void stop_session(const session_info *info)
{
    HANDLE stop = stop_event(info->handle);
    wcscpy(last_stopped, info->name);
    lingering = g_config.linger;
    registry_remove(info->handle);
    stop_seen(info->handle);
    SetEvent(stop);
    CloseHandle(stop);
}

static int stop_one(const session_info *info, void *context)
{
    (void)context;
    stop_session(info);
    return 0;
}

void registry_stop_all(void)
{
    registry_enter();
    registry_each(stop_one, NULL);
    lingering = 0;
    registry_leave();
}

/* ---- properties ---- */

/* Writes a text at an offset of the caller's block; 0 if there is no room. */
static int put_text(EVENT_TRACE_PROPERTIES *properties, ULONG offset, const WCHAR *text)
{
    ULONG bytes = (ULONG)(wcslen(text) + 1) * sizeof(WCHAR);
    if (offset < sizeof *properties || offset > properties->Wnode.BufferSize ||
        properties->Wnode.BufferSize - offset < bytes)
        return 0;
    memcpy((BYTE *)properties + offset, text, bytes);
    return 1;
}

static ULONG fill_properties(EVENT_TRACE_PROPERTIES *properties, const session_info *info)
{
    int named;
    properties->Wnode.HistoricalContext = info->handle;
    properties->Wnode.Guid = info->guid;
    properties->Wnode.ClientContext = info->clock;
    properties->Wnode.Flags = TRACED_GUID;
    properties->BufferSize = info->buffer_size;
    properties->MinimumBuffers = info->minimum_buffers;
    properties->MaximumBuffers = info->maximum_buffers;
    properties->LogFileMode = info->mode;
    properties->FlushTimer = info->flush_timer;
    properties->EnableFlags = info->enable_flags;
    properties->NumberOfBuffers = info->minimum_buffers;
    properties->FreeBuffers = info->minimum_buffers - 1;
    properties->EventsLost = info->events_lost;
    properties->BuffersWritten = info->buffers_written;
    properties->LogBuffersLost = info->log_buffers_lost;
    properties->RealTimeBuffersLost = info->rt_buffers_lost;
    properties->LoggerThreadId = (HANDLE)(ULONG_PTR)info->thread_id;
    named = put_text(properties, properties->LoggerNameOffset, info->name);
    if (properties->LogFileNameOffset)
        named &= put_text(properties, properties->LogFileNameOffset, L"");
    return named ? ERROR_SUCCESS : ERROR_MORE_DATA;
}

/* ---- StartTraceW ---- */

static ULONG check_start(const WCHAR *name, const EVENT_TRACE_PROPERTIES *p)
{
    ULONG needed;
    int system;
    if (!name || !*name || wcslen(name) > MAX_NAME)
        return ERROR_INVALID_PARAMETER;
    if (p->Wnode.BufferSize < sizeof *p)
        return ERROR_BAD_LENGTH;
    if (p->LoggerNameOffset < sizeof *p || (p->LogFileNameOffset && p->LogFileNameOffset < sizeof *p))
        return ERROR_INVALID_PARAMETER;
    needed = (ULONG)(wcslen(name) + 1) * sizeof(WCHAR);
    if (p->LoggerNameOffset > p->Wnode.BufferSize || p->Wnode.BufferSize - p->LoggerNameOffset < needed)
        return ERROR_BAD_LENGTH;
    if (p->LogFileNameOffset && p->LogFileNameOffset > p->Wnode.BufferSize - sizeof(WCHAR))
        return ERROR_BAD_LENGTH;
    if (p->LogFileNameOffset && !*(const WCHAR *)((const BYTE *)p + p->LogFileNameOffset))
        return ERROR_BAD_PATHNAME; /* undocumented for a real-time session: as strict as it can be */
    if (p->BufferSize > 1024 || (p->MaximumBuffers && p->MaximumBuffers < p->MinimumBuffers))
        return ERROR_INVALID_PARAMETER;
    if (!(p->Wnode.Flags & TRACED_GUID) || !(p->LogFileMode & MODE_REAL_TIME) || p->Wnode.ClientContext > 3)
        return ERROR_INVALID_PARAMETER; /* no log files here */
    if (!_wcsicmp(name, kernel_logger) != !memcmp(&p->Wnode.Guid, &g_system_trace_guid, sizeof(GUID)))
        return ERROR_INVALID_PARAMETER;
    system = p->LogFileMode & MODE_SYSTEM_LOGGER;
    if (system && (!g_config.private_sessions || (p->LogFileMode & MODE_PAGED_MEMORY)))
        return ERROR_INVALID_PARAMETER;
    if (p->EnableFlags && !system && _wcsicmp(name, kernel_logger))
        return ERROR_INVALID_PARAMETER; /* the flags are the kernel's */
    return g_config.admin ? ERROR_SUCCESS : ERROR_ACCESS_DENIED;
}

typedef struct rivals {
    const WCHAR *name;
    GUID guid;
    int all, system;
} rivals;

static int earlier(const session_info *info, void *context)
{
    rivals *seen = context;
    seen->all++;
    if ((info->mode & MODE_SYSTEM_LOGGER) && _wcsicmp(info->name, kernel_logger))
        seen->system++;
    if (!_wcsicmp(info->name, seen->name))
        return 1;
    return memcmp(&seen->guid, &no_guid, sizeof(GUID)) && !memcmp(&info->guid, &seen->guid, sizeof(GUID));
}

/* Both halves of the handle matter, so that one that lost its upper half is not found. */
static ULONGLONG new_handle(void)
{
    static ULONG counter = 16;
    ULONGLONG handle;
    session_info old;
    do /* a dead process with the same pid may have left sessions */
        handle = ((ULONGLONG)(0x5e000000u + GetCurrentProcessId()) << 32) | counter++;
    while (registry_find(handle, NULL, &old));
    return handle;
}

static void describe(session_info *info, const WCHAR *name, const EVENT_TRACE_PROPERTIES *p)
{
    SYSTEM_INFO machine;
    ULONG least;
    GetSystemInfo(&machine);
    least = 2 * machine.dwNumberOfProcessors;
    memset(info, 0, sizeof *info);
    memcpy(info->magic, "ETWSIM1", 8);
    info->handle = new_handle();
    info->guid = p->Wnode.Guid;
    if (!memcmp(&info->guid, &no_guid, sizeof(GUID)))
        memcpy(&info->guid, &info->handle, sizeof info->handle);
    info->mode = p->LogFileMode;
    info->enable_flags = p->EnableFlags;
    info->clock = p->Wnode.ClientContext ? p->Wnode.ClientContext : 1;
    info->owner_pid = GetCurrentProcessId();
    info->buffer_size = p->BufferSize ? min(p->BufferSize, 1024) : 64;
    info->minimum_buffers = max(p->MinimumBuffers, least);
    info->maximum_buffers = max(p->MaximumBuffers, info->minimum_buffers + 20);
    info->flush_timer = p->FlushTimer;
    info->events_lost = g_config.events_lost;
    info->log_buffers_lost = g_config.log_buffers_lost;
    info->rt_buffers_lost = g_config.rt_buffers_lost;
    info->thread_id = GetCurrentThreadId();
    wcscpy(info->name, name);
}

/* Needs the registry lock. */
static ULONG start_session(const WCHAR *name, EVENT_TRACE_PROPERTIES *properties, TRACEHANDLE *handle)
{
    rivals seen = {name, properties->Wnode.Guid, 0, 0};
    session *slot = NULL;
    if (registry_each(earlier, &seen))
        return ERROR_ALREADY_EXISTS;
    if (lingering && !_wcsicmp(name, last_stopped)) {
        lingering--;
        return ERROR_ALREADY_EXISTS;
    }
    if (seen.all >= MAX_SESSIONS)
        return ERROR_NO_SYSTEM_RESOURCES;
    if ((properties->LogFileMode & MODE_SYSTEM_LOGGER) && _wcsicmp(name, kernel_logger) &&
        seen.system >= SYSTEM_LOGGERS_FREE)
        return ERROR_NO_SYSTEM_RESOURCES;
    EnterCriticalSection(&g_lock);
    for (int i = 0; i < MAX_SESSIONS && !slot; i++)
        if (g_sessions[i].state == SESSION_FREE)
            slot = &g_sessions[i];
    if (slot) {
        describe(&slot->info, name, properties);
        registry_save(&slot->info);
        slot->state = SESSION_RUNNING;
        slot->next_flush = GetTickCount64() + 1000ull * (slot->info.flush_timer ? slot->info.flush_timer : 1);
        fill_properties(properties, &slot->info);
        *handle = slot->info.handle;
        emit_start(slot);
    }
    LeaveCriticalSection(&g_lock);
    return slot ? ERROR_SUCCESS : ERROR_NO_SYSTEM_RESOURCES;
}

ULONG WMIAPI StartTraceW(TRACEHANDLE *handle, LPCWSTR name, EVENT_TRACE_PROPERTIES *properties)
{
    ULONG result = take_failure(CALL_START);
    if (!handle || !properties)
        return ERROR_INVALID_PARAMETER;
    *handle = 0;
    if (!result)
        result = check_start(name, properties);
    if (result)
        return result;
    registry_enter();
    result = start_session(name, properties, handle);
    registry_leave();
    return result;
}

/* ---- ControlTraceW and the rest ---- */

/* The registry knows what a session is, its own process what has happened in it since. */
static void refresh(session_info *info, const EVENT_TRACE_PROPERTIES *changes, int flush)
{
    session *which;
    EnterCriticalSection(&g_lock);
    which = local_session(info->handle);
    if (which && flush)
        session_flush(which);
    if (which && changes) {
        ULONG news = changes->EnableFlags & ~which->info.enable_flags;
        which->info.flush_timer = changes->FlushTimer;
        which->info.enable_flags = changes->EnableFlags;
        if (news & FLAG_IMAGE_LOAD)
            emit_start(which);
        registry_save(&which->info);
    }
    if (which)
        *info = which->info;
    LeaveCriticalSection(&g_lock);
}

ULONG WMIAPI ControlTraceW(TRACEHANDLE handle, LPCWSTR name, EVENT_TRACE_PROPERTIES *properties, ULONG code)
{
    session_info info;
    ULONG result = take_failure(CALL_CONTROL);
    if (result)
        return result;
    if (!properties || (!handle && !name) || code > EVENT_TRACE_CONTROL_FLUSH)
        return ERROR_INVALID_PARAMETER;
    if (properties->Wnode.BufferSize < sizeof *properties)
        return ERROR_BAD_LENGTH;
    registry_enter();
    if (!registry_find(handle, name, &info)) {
        result = ERROR_WMI_INSTANCE_NOT_FOUND;
    } else if (!g_config.admin) {
        result = ERROR_ACCESS_DENIED;
    } else {
        refresh(&info, code == EVENT_TRACE_CONTROL_UPDATE ? properties : NULL, code == EVENT_TRACE_CONTROL_FLUSH);
        if (code == EVENT_TRACE_CONTROL_STOP)
            stop_session(&info);
        result = fill_properties(properties, &info); /* 234 comes after the deed */
    }
    registry_leave();
    return result;
}

typedef struct all_query {
    EVENT_TRACE_PROPERTIES **array;
    ULONG room, count;
} all_query;

static int fill_one(const session_info *info, void *context)
{
    all_query *all = context;
    if (all->count < all->room)
        fill_properties(all->array[all->count], info);
    all->count++;
    return 0;
}

ULONG WMIAPI QueryAllTracesW(EVENT_TRACE_PROPERTIES **array, ULONG room, ULONG *count)
{
    all_query all = {array, room, 0};
    ULONG result = take_failure(CALL_QUERY_ALL);
    if (result)
        return result;
    if (!array || !count || !room || room > MAX_SESSIONS)
        return ERROR_INVALID_PARAMETER;
    registry_enter();
    registry_each(fill_one, &all);
    registry_leave();
    *count = all.count;
    return all.count > room ? ERROR_MORE_DATA : ERROR_SUCCESS;
}

static ULONG add_flags(ULONGLONG handle, ULONG flags)
{
    session *which;
    EVENT_TRACE_PROPERTIES changes;
    session_info info;
    EnterCriticalSection(&g_lock);
    which = local_session(handle);
    if (which && which->state == SESSION_RUNNING) {
        changes.EnableFlags = which->info.enable_flags | flags;
        changes.FlushTimer = which->info.flush_timer;
        info = which->info;
    }
    LeaveCriticalSection(&g_lock);
    if (!which)
        return ERROR_INVALID_HANDLE;
    registry_enter();
    refresh(&info, &changes, 0);
    registry_leave();
    return ERROR_SUCCESS;
}

/* Remembers who is enabled for a session of this process, for sim_say. */
static void remember_provider(ULONGLONG handle, const GUID *provider, int enabled)
{
    session *which;
    EnterCriticalSection(&g_lock);
    which = local_session(handle);
    for (int i = 0; which && i < which->provider_count; i++)
        if (!memcmp(&which->providers[i], provider, sizeof(GUID)))
            which->providers[i] = which->providers[--which->provider_count];
    if (which && enabled && which->provider_count < MAX_PROVIDERS)
        which->providers[which->provider_count++] = *provider;
    LeaveCriticalSection(&g_lock);
}

/* The System Process Provider with its loader keyword turns the kernel's image events on; the others write what a test
 * makes them say. */
ULONG WMIAPI EnableTraceEx2(TRACEHANDLE handle, LPCGUID provider, ULONG code, UCHAR level, ULONGLONG any,
                            ULONGLONG all, ULONG timeout, PENABLE_TRACE_PARAMETERS parameters)
{
    ULONG result = take_failure(CALL_ENABLE);
    int loader;
    (void)level, (void)all, (void)timeout, (void)parameters;
    if (result)
        return result;
    if (!provider || code > 2)
        return ERROR_INVALID_PARAMETER;
    remember_provider(handle, provider, code == 1);
    loader = code == 1 && (any & 0x1000) && !memcmp(provider, &system_process_guid, sizeof(GUID));
    return add_flags(handle, loader ? FLAG_IMAGE_LOAD : 0);
}

/* Class 4 is TraceSystemTraceEnableFlagsInfo: an array of flag words of which the first is EnableFlags. */
ULONG WMIAPI TraceSetInformation(TRACEHANDLE handle, TRACE_INFO_CLASS class, PVOID data, ULONG length)
{
    ULONG result = take_failure(CALL_SET_INFO);
    if (result)
        return result;
    if (!data || length < sizeof(ULONG))
        return ERROR_BAD_LENGTH;
    return add_flags(handle, (int)class == 4 ? *(const ULONG *)data : 0);
}
