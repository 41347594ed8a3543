/* The consumer's side: OpenTraceW, ProcessTrace in the caller's thread, CloseTrace. */
#include "etwsim.h"

#define MAX_TRACES 64

typedef enum { TRACE_FREE, TRACE_OPEN, TRACE_RUNNING, TRACE_CLOSING } trace_state;

typedef struct trace {
    volatile trace_state state; /* CloseTrace changes it under a running ProcessTrace */
    ULONGLONG handle;
    HANDLE wake;
    ULONG mode; /* as asked for: the caller's own copy gets overwritten */
    PEVENT_RECORD_CALLBACK record_callback;
    PEVENT_CALLBACK event_callback;
    PEVENT_TRACE_BUFFER_CALLBACKW buffer_callback;
    EVENT_TRACE_LOGFILEW *logfile;
    void *context;
    LONGLONG from, until; /* FILETIMEs of the events wanted */
    WCHAR name[MAX_NAME + 1];
} trace;

static trace traces[MAX_TRACES];
static LONG running;

void consumer_wake(trace *consumer)
{
    if (consumer)
        SetEvent(consumer->wake);
}

LONG consumer_threads(void)
{
    return running;
}

static trace *find_trace(ULONGLONG handle)
{
    for (int i = 0; i < MAX_TRACES; i++)
        if (traces[i].state != TRACE_FREE && traces[i].handle == handle)
            return &traces[i];
    return NULL;
}

static trace *new_trace(void)
{
    static ULONG counter = 1;
    for (int i = 0; i < MAX_TRACES; i++)
        if (traces[i].state == TRACE_FREE) {
            memset(&traces[i], 0, sizeof traces[i]);
            traces[i].state = TRACE_OPEN;
            traces[i].handle = 0x7ace000000000000ull | counter++;
            traces[i].wake = CreateEventW(NULL, FALSE, FALSE, NULL);
            return &traces[i];
        }
    return NULL;
}

static void free_trace(trace *which)
{
    CloseHandle(which->wake);
    which->state = TRACE_FREE;
}

static void fill_header(TRACE_LOGFILE_HEADER *header, const session_info *info)
{
    SYSTEM_INFO machine;
    LARGE_INTEGER now;
    GetSystemInfo(&machine);
    QueryPerformanceCounter(&now);
    memset(header, 0, sizeof *header);
    header->BufferSize = info->buffer_size * 1024;
    header->Version = 0x0501000a; /* 10.0, event tracing 1.5 */
    header->ProviderVersion = 19045;
    header->NumberOfProcessors = machine.dwNumberOfProcessors;
    header->TimerResolution = 156250;
    header->LogFileMode = info->mode;
    header->StartBuffers = 1;
    header->PointerSize = sizeof(void *);
    header->CpuSpeedInMHz = 2400;
    header->PerfFreq.QuadPart = counter_frequency();
    header->BootTime.QuadPart = filetime_of(now.QuadPart) - (LONGLONG)GetTickCount64() * 10000;
    header->StartTime.QuadPart = filetime_of(now.QuadPart);
    header->ReservedFlags = info->clock;
}

/* That the session runs is found out by ProcessTrace only. */
TRACEHANDLE WMIAPI OpenTraceW(EVENT_TRACE_LOGFILEW *logfile)
{
    session_info info;
    trace *it;
    int known;
    ULONG error = take_failure(CALL_OPEN);
    if (!error && (!logfile || !logfile->LoggerName || !*logfile->LoggerName || logfile->LogFileName ||
                   !(logfile->ProcessTraceMode & MODE_REAL_TIME) || !logfile->EventRecordCallback ||
                   wcslen(logfile->LoggerName) > MAX_NAME))
        error = ERROR_INVALID_PARAMETER;
    if (!error && !g_config.admin)
        error = ERROR_ACCESS_DENIED;
    if (error) {
        SetLastError(error);
        return INVALID_PROCESSTRACE_HANDLE;
    }
    memset(&info, 0, sizeof info);
    registry_enter();
    known = registry_find(0, logfile->LoggerName, &info);
    registry_leave();
    EnterCriticalSection(&g_lock);
    it = new_trace();
    if (it) {
        it->mode = logfile->ProcessTraceMode;
        it->record_callback = logfile->EventRecordCallback;
        it->event_callback = logfile->EventCallback;
        it->buffer_callback = logfile->BufferCallback;
        it->context = logfile->Context;
        it->logfile = logfile;
        wcscpy(it->name, logfile->LoggerName);
    }
    LeaveCriticalSection(&g_lock);
    if (!it) {
        SetLastError(ERROR_NO_SYSTEM_RESOURCES);
        return INVALID_PROCESSTRACE_HANDLE;
    }
    if (known) {
        fill_header(&logfile->LogfileHeader, &info);
        logfile->LogFileMode = info.mode; /* a union with ProcessTraceMode: it is really overwritten */
    }
    logfile->IsKernelTrace = 1;
    return it->handle;
}

/* The form from before Vista, for consumers that do not ask for records. */
static void deliver_old(trace *it, event *item)
{
    EVENT_TRACE old;
    EVENT_HEADER *header = &item->record.EventHeader;
    memset(&old, 0, sizeof old);
    old.Header.Size = (USHORT)(sizeof old.Header + item->record.UserDataLength);
    old.Header.Class.Type = header->EventDescriptor.Opcode;
    old.Header.Class.Version = header->EventDescriptor.Version;
    old.Header.ThreadId = header->ThreadId;
    old.Header.ProcessId = header->ProcessId;
    old.Header.TimeStamp = header->TimeStamp;
    old.Header.Guid = header->ProviderId;
    old.MofData = item->record.UserData;
    old.MofLength = item->record.UserDataLength;
    it->event_callback(&old);
}

static void deliver(trace *it, event *item)
{
    LONGLONG time = filetime_of(item->counter);
    EVENT_RECORD *record = &item->record;
    if (time < it->from || time > it->until)
        return;
    record->EventHeader.TimeStamp.QuadPart = it->mode & MODE_RAW_TIMESTAMP ? item->counter : time;
    record->UserData = item->payload;
    record->UserContext = it->context;
    if (it->mode & MODE_EVENT_RECORD)
        it->record_callback(record);
    else
        deliver_old(it, item);
}

/* Delivers in order without any lock; what comes after a CloseTrace is dropped. Returns 0 if told to stop. */
static int deliver_all(trace *it, event *batch)
{
    ULONG count = 0;
    if (!batch)
        return 1;
    while (batch) {
        event *item = batch;
        batch = item->next;
        if (it->state == TRACE_RUNNING) {
            deliver(it, item);
            count++;
        }
        /* A record is the callback's for the time of the call only: who keeps the pointer finds rubbish. */
        memset(&item->record, 0xdd, sizeof item->record + item->record.UserDataLength);
        HeapFree(g_heap, 0, item);
    }
    if (!it->buffer_callback || it->state != TRACE_RUNNING)
        return 1;
    it->logfile->BuffersRead++;
    it->logfile->Filled = count;
    return it->buffer_callback(it->logfile) != 0;
}

/* Takes what is flushed; says how long nothing can happen by itself, or that there will be no more. */
static event *take_ready(ULONGLONG handle, int *finished, DWORD *timeout)
{
    event *batch = NULL;
    session *from;
    EnterCriticalSection(&g_lock);
    from = local_session(handle);
    *finished = !from || from->state != SESSION_RUNNING;
    if (from) {
        ULONGLONG now = GetTickCount64();
        if (now >= from->next_flush)
            session_flush(from);
        *timeout = (DWORD)(from->next_flush - now);
        batch = from->ready.head;
        memset(&from->ready, 0, sizeof from->ready);
    }
    LeaveCriticalSection(&g_lock);
    return batch;
}

static ULONG consume(trace *it, const session_info *info)
{
    HANDLE handles[2] = {it->wake, stop_event(info->handle)};
    int remote = info->owner_pid != GetCurrentProcessId();
    ULONG result = ERROR_SUCCESS;
    while (it->state == TRACE_RUNNING) {
        DWORD timeout = INFINITE;
        int finished = 0;
        event *batch = remote ? NULL : take_ready(info->handle, &finished, &timeout);
        if (!deliver_all(it, batch)) {
            result = ERROR_CANCELLED;
            break;
        }
        if (finished)
            break;
        if (!batch && WaitForMultipleObjects(2, handles, FALSE, timeout) == WAIT_OBJECT_0 + 1) {
            if (remote)
                break;
            stop_seen(info->handle); /* the next round drains and finishes */
        }
    }
    CloseHandle(handles[1]);
    return result;
}

/* Binds the trace to its session: the first step that finds out whether that runs. */
static ULONG attach(trace *it, session_info *info)
{
    ULONG result = ERROR_SUCCESS;
    session *which;
    registry_enter();
    if (!registry_find(0, it->name, info) || !(info->mode & MODE_REAL_TIME))
        result = ERROR_WMI_INSTANCE_NOT_FOUND;
    EnterCriticalSection(&g_lock);
    which = result ? NULL : local_session(info->handle);
    if (it->state != TRACE_OPEN || (which && which->consumer)) {
        result = ERROR_INVALID_PARAMETER; /* one consumer per session: a limit of this simulator */
    } else if (!result) {
        it->state = TRACE_RUNNING;
        if (which)
            which->consumer = it;
    }
    LeaveCriticalSection(&g_lock);
    registry_leave();
    return result;
}

static void detach(trace *it, ULONGLONG handle)
{
    session *which;
    EnterCriticalSection(&g_lock);
    which = local_session(handle);
    if (which && which->consumer == it) {
        which->consumer = NULL;
        session_release(which);
    }
    if (it->state == TRACE_CLOSING)
        free_trace(it);
    else
        it->state = TRACE_OPEN;
    LeaveCriticalSection(&g_lock);
}

static LONGLONG time_or(const FILETIME *time, LONGLONG otherwise)
{
    return time ? (LONGLONG)(((ULONGLONG)time->dwHighDateTime << 32) | time->dwLowDateTime) : otherwise;
}

ULONG WMIAPI ProcessTrace(TRACEHANDLE *handles, ULONG count, LPFILETIME start, LPFILETIME end)
{
    session_info info;
    trace *it;
    ULONG result = take_failure(CALL_PROCESS);
    if (result)
        return result;
    if (!handles || count != 1)
        return ERROR_INVALID_PARAMETER;
    EnterCriticalSection(&g_lock);
    it = find_trace(handles[0]);
    LeaveCriticalSection(&g_lock);
    if (!it)
        return ERROR_INVALID_HANDLE;
    it->from = time_or(start, 0);
    it->until = time_or(end, MAXLONGLONG);
    result = attach(it, &info);
    if (result)
        return result;
    InterlockedIncrement(&running);
    result = consume(it, &info);
    detach(it, info.handle);
    InterlockedDecrement(&running);
    return result;
}

ULONG WMIAPI CloseTrace(TRACEHANDLE handle)
{
    trace *it;
    ULONG result = take_failure(CALL_CLOSE);
    if (result)
        return result;
    EnterCriticalSection(&g_lock);
    it = find_trace(handle);
    if (!it || it->state == TRACE_CLOSING) {
        result = ERROR_INVALID_HANDLE;
    } else if (it->state == TRACE_RUNNING) {
        it->state = TRACE_CLOSING;
        SetEvent(it->wake);
        result = ERROR_CTX_CLOSE_PENDING;
    } else {
        free_trace(it);
    }
    LeaveCriticalSection(&g_lock);
    return result;
}
