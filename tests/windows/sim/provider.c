/* The provider's side in user mode: EventRegister, EventWrite, EventUnregister, and what a test makes a provider say. */
#include "etwsim.h"

#define MAX_REGISTERED 64

static GUID registered[MAX_REGISTERED];
static int taken[MAX_REGISTERED];

/* To the running sessions of this process that have enabled the provider; returns how many. Needs g_lock. */
static int write_event(const GUID *provider, int id, int version, int opcode, ULONG pid, ULONG tid,
                       const void *payload, int length)
{
    int count = 0;
    for (int i = 0; i < MAX_SESSIONS; i++) {
        session *to = &g_sessions[i];
        if (to->state != SESSION_RUNNING)
            continue;
        for (int p = 0; p < to->provider_count; p++) {
            if (memcmp(&to->providers[p], provider, sizeof(GUID)))
                continue;
            event_append(to, provider, version, opcode, EVENT_HEADER_FLAG_64_BIT_HEADER, pid, tid, payload, length);
            to->pending.tail->record.EventHeader.EventDescriptor.Id = (USHORT)id;
            count++;
            break;
        }
    }
    return count;
}

SIM_EXPORT int sim_say(const GUID *provider, int id, int version, int opcode, ULONG pid, ULONG tid,
                       const void *payload, int length)
{
    int count;
    EnterCriticalSection(&g_lock);
    count = write_event(provider, id, version, opcode, pid, tid, payload, length);
    LeaveCriticalSection(&g_lock);
    return count;
}

SIM_EXPORT int sim_provider_count(void)
{
    int count = 0;
    for (int i = 0; i < MAX_REGISTERED; i++)
        count += taken[i];
    return count;
}

ULONG EVNTAPI EventRegister(LPCGUID provider, PENABLECALLBACK callback, PVOID context, PREGHANDLE handle)
{
    ULONG result = ERROR_NO_SYSTEM_RESOURCES;
    (void)callback, (void)context;
    if (!provider || !handle)
        return ERROR_INVALID_PARAMETER;
    EnterCriticalSection(&g_lock);
    for (int i = 0; i < MAX_REGISTERED && result; i++) {
        if (taken[i])
            continue;
        taken[i] = 1;
        registered[i] = *provider;
        *handle = 0x9e0000000000ull + (ULONGLONG)i; /* both halves matter */
        result = ERROR_SUCCESS;
    }
    LeaveCriticalSection(&g_lock);
    return result;
}

static int find_registered(REGHANDLE handle)
{
    ULONGLONG index = handle - 0x9e0000000000ull;
    return index < MAX_REGISTERED && taken[index] ? (int)index : -1;
}

ULONG EVNTAPI EventUnregister(REGHANDLE handle)
{
    int index;
    EnterCriticalSection(&g_lock);
    index = find_registered(handle);
    if (index >= 0)
        taken[index] = 0;
    LeaveCriticalSection(&g_lock);
    return index < 0 ? ERROR_INVALID_HANDLE : ERROR_SUCCESS;
}

/* Success also when nobody listens, as in Windows. Payloads are not taken: nobody needs them here. */
ULONG EVNTAPI EventWrite(REGHANDLE handle, PCEVENT_DESCRIPTOR descriptor, ULONG count, PEVENT_DATA_DESCRIPTOR data)
{
    int index;
    (void)data;
    if (!descriptor || count)
        return ERROR_INVALID_PARAMETER;
    EnterCriticalSection(&g_lock);
    index = find_registered(handle);
    if (index >= 0)
        write_event(&registered[index], descriptor->Id, descriptor->Version, descriptor->Opcode,
                    GetCurrentProcessId(), GetCurrentThreadId(), "", 0);
    LeaveCriticalSection(&g_lock);
    return index < 0 ? ERROR_INVALID_HANDLE : ERROR_SUCCESS;
}
