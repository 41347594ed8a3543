/*
 * A simulator of Event Tracing for Windows, for tests under Wine, where ETW is a stub.
 *
 * It exports the controller and consumer functions with the ABI of advapi32.dll (StartTraceW ControlTraceW
 * OpenTraceW ProcessTrace CloseTrace QueryAllTracesW EnableTraceEx2 TraceSetInformation), those of a provider
 * (EventRegister EventWrite EventUnregister), and feeds the sessions with the image loads and unloads that really happen in this process, as EVENT_RECORDs of the exact layout,
 * among the events of other processes and of other providers. What a real kernel does and this cannot: lose
 * events by itself, order events of several CPUs, deliver one session to several consumers, see real other
 * processes.
 *
 *   images.c    what is mapped: hooks in ntdll, the loader's notifications, the table of images
 *   events.c    event records and their payloads, rundown, noise
 *   sessions.c  the controller's side: start, query, stop, flush
 *   registry.c  the sessions of all processes, on disk
 *   consumer.c  OpenTraceW, ProcessTrace, CloseTrace
 *   provider.c  EventRegister, EventWrite, EventUnregister
 *   control.c   the exports for tests
 *
 * ENVIRONMENT, read when the DLL is loaded:
 *   DLLTRACER_SIM_STATE    folder for the registry of sessions: one file per session. Processes with the same
 *                          folder see each other's sessions, and those of a killed process stay until stopped.
 *                          Without it the sessions are visible to this process only.
 *   DLLTRACER_SIM_ADMIN=0, DLLTRACER_SIM_PRIVATE=0, DLLTRACER_SIM_NOISE=0 set the same as the exports below.
 *
 * EXPORTS FOR TESTS (cdecl, int is 32 bit):
 *   void sim_reset(void)                   stop every session of the registry, back to the defaults
 *   void sim_set_admin(int)                0: StartTraceW, ControlTraceW, OpenTraceW fail with 5
 *   void sim_set_private_sessions(int)     0: EVENT_TRACE_SYSTEM_LOGGER_MODE is refused with 87, as before Windows 8
 *   void sim_set_lost(ULONG events, ULONG rt_buffers)    counts that QUERY and STOP return, running sessions too
 *   void sim_set_log_lost(ULONG buffers)   the same for LogBuffersLost
 *   void sim_set_noise(int)                0: events of this process only; 1: default; n > 1: also n images of
 *                                          another process in each rundown
 *   void sim_set_version(int)              payload version 2 or 3 (default). In version 2 a load of drive C:
 *                                          is spelled without its volume and the unload with it, as Windows 7 did
 *   void sim_set_queues(int)               2: events go by turns to the buffers of two processors; a flush delivers those
 *                                          of the second one flush later, the stop delivers all. 1: default
 *   void sim_set_linger(int)               so many calls of StartTraceW find the name of a stopped session still taken
 *   void sim_set_rundown(int)              0: no DCStart and no DCEnd events
 *   void sim_spell(const WCHAR *prefix, const WCHAR *kernel)   a path that begins so is reported with the other text in
 *                                          its place, as the kernel does for links, SUBST and shares; NULL: forget all
 *   void sim_fail_next(int call, ULONG code)   the next call fails so: 1 StartTraceW 2 OpenTraceW 3 ProcessTrace
 *                                          4 ControlTraceW 5 CloseTrace 6 EnableTraceEx2 7 TraceSetInformation
 *                                          8 QueryAllTracesW; code 0 takes it back. OpenTraceW: code is the last error
 *   int  sim_inject(const GUID *provider, int version, int opcode, int header_flags, ULONG header_pid,
 *                   ULONG header_tid, const void *payload, int length)
 *                                          appends one event, unjudged, to every running session of this process;
 *                                          returns how many that were
 *   int  sim_say(const GUID *provider, int id, int version, int opcode, ULONG pid, ULONG tid, const void *payload,
 *                int length)
 *                                          a provider in user mode writes one event: to the running sessions of this
 *                                          process that have enabled it; returns how many those were
 *   int  sim_provider_count(void)          providers that are registered
 *   int  sim_session_count(void)           sessions in the registry, those of other processes included
 *   int  sim_thread_count(void)            calls of ProcessTrace that run now in this process
 *   int  sim_hooks_active(void)            1: ntdll is hooked; 0: only the loader's notifications are seen
 *   int  sim_pending_count(void)           buffered events of this process' sessions that no flush released yet
 *
 * LOCKS: the registry lock (a named mutex) before g_lock. The hooks run inside of the loader and take g_lock only,
 * so nothing that holds g_lock may call the loader, wait, or call back.
 */
#ifndef ETWSIM_H
#define ETWSIM_H

#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0602
#define WMIAPI __declspec(dllexport) __stdcall
#define EVNTAPI WMIAPI
#include <windows.h>
#include <winternl.h>
#include <evntrace.h>
#include <evntcons.h>
#include <wchar.h>

#define SIM_EXPORT __declspec(dllexport)

/* Names that mingw's headers lack, or hide behind newer versions. */
#define MODE_REAL_TIME 0x00000100u
#define MODE_RAW_TIMESTAMP 0x00001000u
#define MODE_EVENT_RECORD 0x10000000u
#define MODE_PAGED_MEMORY 0x01000000u
#define MODE_SYSTEM_LOGGER 0x02000000u
#define FLAG_IMAGE_LOAD 0x00000004u
#define FLAG_NO_SYSCONFIG 0x10000000u
#define TRACED_GUID 0x00020000u
#define SYSTEM_LOGGERS_FREE 6 /* 8, of which two are reserved for the NT Kernel Logger and the Circular one */
#define MAX_SESSIONS 64
#define MAX_NAME 1024
#define MAX_PROVIDERS 8
#define MAX_SPELLINGS 8
#define NO_ID 0xFFFFFFFFu /* the pid and tid of events whose kernel header has none */

enum { OP_LOAD = 10, OP_UNLOAD = 2, OP_DC_START = 3, OP_DC_END = 4 };
enum { CALL_START = 1, CALL_OPEN, CALL_PROCESS, CALL_CONTROL, CALL_CLOSE, CALL_ENABLE, CALL_SET_INFO, CALL_QUERY_ALL };
#define CALL_COUNT 9

/* One image view of this process. */
typedef struct image {
    BYTE *base;
    SIZE_T size;
    ULONG checksum;
    ULONG stamp;
    ULONGLONG default_base;
    WCHAR *path; /* C:\folder\x.dll */
    ULONG serial, tid;
    int finished; /* its load has succeeded */
} image;

/* One buffered event. The record is completed when it is delivered. */
typedef struct event {
    struct event *next;
    LONGLONG counter; /* QueryPerformanceCounter */
    EVENT_RECORD record;
    BYTE payload[];
} event;

typedef struct event_list {
    event *head, *tail;
    int count;
} event_list;

/* What the registry file of a session holds. */
typedef struct session_info {
    char magic[8];
    ULONGLONG handle;
    GUID guid;
    ULONG mode, enable_flags, clock, owner_pid;
    ULONG buffer_size, minimum_buffers, maximum_buffers, flush_timer;
    ULONG events_lost, log_buffers_lost, rt_buffers_lost, buffers_written, thread_id;
    WCHAR name[MAX_NAME + 1];
} session_info;

struct trace;
typedef enum { SESSION_FREE, SESSION_RUNNING, SESSION_STOPPED } session_state;

/* A session that this process started. */
typedef struct session {
    session_state state;
    session_info info;
    event_list pending; /* in the kernel's buffers */
    event_list second, held; /* in those of a second processor: new ones, and those that the next flush delivers */
    event_list ready;   /* flushed to the consumer */
    ULONGLONG next_flush;
    struct trace *consumer;
    GUID providers[MAX_PROVIDERS]; /* those that EnableTraceEx2 turned on */
    int provider_count;
} session;

typedef struct sim_config {
    int admin, private_sessions, noise, version;
    int queues, linger, rundown;
    ULONG events_lost, rt_buffers_lost, log_buffers_lost;
    ULONG fail_next[CALL_COUNT];
    int spelling_count;
    struct {
        WCHAR prefix[MAX_PATH], kernel[MAX_PATH];
    } spellings[MAX_SPELLINGS];
} sim_config;

extern CRITICAL_SECTION g_lock;
extern HANDLE g_heap;
extern sim_config g_config;
extern session g_sessions[MAX_SESSIONS];
extern const GUID g_system_trace_guid;

/* control.c */
ULONG take_failure(int call);

/* images.c */
void images_init(void);
int images_hooked(void);
/* Calls back for each image of this process, in load order. Needs g_lock. */
void images_each(void (*call)(const image *item, void *context), void *context);

/* events.c: all need g_lock */
void events_init(void);
void event_append(session *to, const GUID *provider, int version, int opcode, int flags, ULONG pid, ULONG tid,
                  const void *payload, int length);
void emit_image(int opcode, const image *item); /* to every session that wants images */
void emit_start(session *to);
void emit_end(session *to);
void list_free(event_list *list);
void session_flush(session *which);
LONGLONG filetime_of(LONGLONG counter);
LONGLONG counter_frequency(void);

/* registry.c: all but init and count need its lock */
void registry_init(void);
void registry_enter(void);
void registry_leave(void);
void registry_save(const session_info *info);
void registry_remove(ULONGLONG handle);
/* Calls back for each session until the callback returns nonzero. */
int registry_each(int (*call)(const session_info *info, void *context), void *context);
int registry_find(ULONGLONG handle, const WCHAR *name, session_info *found); /* a handle wins over a name */
int registry_count(void);

/* sessions.c */
void registry_stop_all(void);
HANDLE stop_event(ULONGLONG handle);
session *local_session(ULONGLONG handle);   /* needs g_lock */
void session_finish(session *which);        /* needs g_lock: rundown, last flush, state STOPPED */
void session_release(session *which);       /* needs g_lock: forget a stopped one without consumer */
void stop_seen(ULONGLONG handle);           /* another process has stopped it */

/* consumer.c */
void consumer_wake(struct trace *consumer);
LONG consumer_threads(void);

#endif
