/* The exports for tests, and the start of the DLL. */
#include "etwsim.h"

CRITICAL_SECTION g_lock;
HANDLE g_heap;
sim_config g_config;
session g_sessions[MAX_SESSIONS];

static int environment_flag(const WCHAR *name)
{
    WCHAR value[8];
    DWORD length = GetEnvironmentVariableW(name, value, 8);
    return !(length == 1 && value[0] == L'0');
}

static void configure(void)
{
    memset(&g_config, 0, sizeof g_config);
    g_config.admin = environment_flag(L"DLLTRACER_SIM_ADMIN");
    g_config.private_sessions = environment_flag(L"DLLTRACER_SIM_PRIVATE");
    g_config.noise = environment_flag(L"DLLTRACER_SIM_NOISE");
    g_config.version = 3;
    g_config.queues = 1;
    g_config.rundown = 1;
}

ULONG take_failure(int call)
{
    return (ULONG)InterlockedExchange((LONG *)&g_config.fail_next[call], 0);
}

SIM_EXPORT void sim_reset(void)
{
    registry_stop_all();
    configure();
}

SIM_EXPORT void sim_set_admin(int on)
{
    g_config.admin = on;
}

SIM_EXPORT void sim_set_private_sessions(int supported)
{
    g_config.private_sessions = supported;
}

SIM_EXPORT void sim_set_noise(int on)
{
    g_config.noise = on;
}

SIM_EXPORT void sim_set_version(int version)
{
    g_config.version = version;
}

SIM_EXPORT void sim_set_queues(int count)
{
    g_config.queues = count;
}

SIM_EXPORT void sim_set_linger(int calls)
{
    g_config.linger = calls;
}

SIM_EXPORT void sim_set_rundown(int on)
{
    g_config.rundown = on;
}

SIM_EXPORT void sim_spell(const WCHAR *prefix, const WCHAR *kernel)
{
    EnterCriticalSection(&g_lock);
    if (!prefix) {
        g_config.spelling_count = 0;
    } else if (g_config.spelling_count < MAX_SPELLINGS) {
        lstrcpynW(g_config.spellings[g_config.spelling_count].prefix, prefix, MAX_PATH);
        lstrcpynW(g_config.spellings[g_config.spelling_count++].kernel, kernel, MAX_PATH);
    }
    LeaveCriticalSection(&g_lock);
}

/* The counts live in the registry files: another process that stops the session sees them. */
static void save_lost_counts(void)
{
    registry_enter();
    EnterCriticalSection(&g_lock);
    for (int i = 0; i < MAX_SESSIONS; i++) {
        session *it = &g_sessions[i];
        if (it->state != SESSION_RUNNING)
            continue;
        it->info.events_lost = g_config.events_lost;
        it->info.rt_buffers_lost = g_config.rt_buffers_lost;
        it->info.log_buffers_lost = g_config.log_buffers_lost;
        registry_save(&it->info);
    }
    LeaveCriticalSection(&g_lock);
    registry_leave();
}

SIM_EXPORT void sim_set_lost(ULONG events, ULONG rt_buffers)
{
    g_config.events_lost = events;
    g_config.rt_buffers_lost = rt_buffers;
    save_lost_counts();
}

SIM_EXPORT void sim_set_log_lost(ULONG buffers)
{
    g_config.log_buffers_lost = buffers;
    save_lost_counts();
}

SIM_EXPORT void sim_fail_next(int call, ULONG code)
{
    if (call > 0 && call < CALL_COUNT)
        InterlockedExchange((LONG *)&g_config.fail_next[call], (LONG)code);
}

SIM_EXPORT int sim_inject(const GUID *provider, int version, int opcode, int header_flags, ULONG header_pid,
                          ULONG header_tid, const void *payload, int length)
{
    int count = 0;
    EnterCriticalSection(&g_lock);
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (g_sessions[i].state == SESSION_RUNNING) {
            event_append(&g_sessions[i], provider, version, opcode, header_flags, header_pid, header_tid, payload,
                         length);
            count++;
        }
    LeaveCriticalSection(&g_lock);
    return count;
}

SIM_EXPORT int sim_session_count(void)
{
    return registry_count();
}

SIM_EXPORT int sim_thread_count(void)
{
    return consumer_threads();
}

SIM_EXPORT int sim_hooks_active(void)
{
    return images_hooked();
}

SIM_EXPORT int sim_pending_count(void)
{
    int count = 0;
    EnterCriticalSection(&g_lock);
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (g_sessions[i].state == SESSION_RUNNING)
            count += g_sessions[i].pending.count + g_sessions[i].second.count + g_sessions[i].held.count;
    LeaveCriticalSection(&g_lock);
    return count;
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    HMODULE pinned;
    (void)reserved;
    if (reason != DLL_PROCESS_ATTACH)
        return TRUE;
    DisableThreadLibraryCalls(self);
    /* ntdll will jump into this DLL from now on, so it must stay for good. */
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (LPCWSTR)(void *)self,
                       &pinned);
    InitializeCriticalSection(&g_lock);
    g_heap = HeapCreate(0, 0, 0);
    configure();
    events_init();
    registry_init();
    images_init();
    return TRUE;
}
