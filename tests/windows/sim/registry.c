/* The registry of sessions: one file each, so that they outlive a process and are seen by the others. */
#include "etwsim.h"

static WCHAR folder[MAX_PATH];
static HANDLE registry_lock;

/* A folder for this process alone: what is in it was left by a dead one of the same pid. */
static void own_folder(void)
{
    WCHAR path[MAX_PATH];
    WIN32_FIND_DATAW data;
    HANDLE find;
    GetTempPathW(MAX_PATH - 60, path);
    _snwprintf(folder, MAX_PATH, L"%lsdlltracer-sim-%u", path, GetCurrentProcessId());
    _snwprintf(path, MAX_PATH, L"%ls\\*.session", folder);
    find = FindFirstFileW(path, &data);
    if (find == INVALID_HANDLE_VALUE)
        return;
    do {
        _snwprintf(path, MAX_PATH, L"%ls\\%ls", folder, data.cFileName);
        DeleteFileW(path);
    } while (FindNextFileW(find, &data));
    FindClose(find);
}

/* Runs in DllMain: nothing here may load a DLL. */
void registry_init(void)
{
    if (!GetEnvironmentVariableW(L"DLLTRACER_SIM_STATE", folder, MAX_PATH - 40))
        own_folder();
    registry_lock = CreateMutexW(NULL, FALSE, L"Local\\dlltracer-sim-registry");
}

void registry_enter(void)
{
    WaitForSingleObject(registry_lock, INFINITE); /* an abandoned mutex is as good: its owner was killed */
}

void registry_leave(void)
{
    ReleaseMutex(registry_lock);
}

static void registry_path(ULONGLONG handle, WCHAR *path)
{
    _snwprintf(path, MAX_PATH, L"%ls\\%08x%08x.session", folder, (ULONG)(handle >> 32), (ULONG)handle);
}

static int read_info(const WCHAR *path, session_info *info)
{
    DWORD size = 0;
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return 0;
    ReadFile(file, info, sizeof *info, &size, NULL);
    CloseHandle(file);
    return size == sizeof *info && !memcmp(info->magic, "ETWSIM1", 8);
}

void registry_save(const session_info *info)
{
    WCHAR path[MAX_PATH];
    DWORD size;
    HANDLE file;
    CreateDirectoryW(folder, NULL);
    registry_path(info->handle, path);
    file = CreateFileW(path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return;
    WriteFile(file, info, sizeof *info, &size, NULL);
    CloseHandle(file);
}

void registry_remove(ULONGLONG handle)
{
    WCHAR path[MAX_PATH];
    registry_path(handle, path);
    DeleteFileW(path);
}

int registry_each(int (*call)(const session_info *info, void *context), void *context)
{
    WCHAR path[MAX_PATH];
    WIN32_FIND_DATAW data;
    session_info info;
    int result = 0;
    HANDLE find;
    _snwprintf(path, MAX_PATH, L"%ls\\*.session", folder);
    find = FindFirstFileW(path, &data);
    if (find == INVALID_HANDLE_VALUE)
        return 0;
    do {
        _snwprintf(path, MAX_PATH, L"%ls\\%ls", folder, data.cFileName);
        if (read_info(path, &info))
            result = call(&info, context);
    } while (!result && FindNextFileW(find, &data));
    FindClose(find);
    return result;
}

typedef struct query {
    ULONGLONG handle;
    const WCHAR *name;
    session_info *found;
} query;

static int matches(const session_info *info, void *context)
{
    query *wanted = context;
    if (wanted->handle ? info->handle != wanted->handle : _wcsicmp(info->name, wanted->name))
        return 0;
    *wanted->found = *info;
    return 1;
}

int registry_find(ULONGLONG handle, const WCHAR *name, session_info *found)
{
    query wanted = {handle, name, found};
    return (handle || name) && registry_each(matches, &wanted);
}

static int count_one(const session_info *info, void *context)
{
    (void)info;
    ++*(int *)context;
    return 0;
}

int registry_count(void)
{
    int count = 0;
    registry_enter();
    registry_each(count_one, &count);
    registry_leave();
    return count;
}
