/* Prints what the compiler makes of the structs of the debugging functions, as layout.c does. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <winternl.h>
#include <stddef.h>
#include <stdio.h>

#define STRUCT(type) printf(#type " %u\n", (unsigned)sizeof(type))
#define FIELD(type, field) \
    printf(#type "." #field " %u %u\n", (unsigned)offsetof(type, field), (unsigned)sizeof(((type *)0)->field))

static void of_exceptions(void)
{
    STRUCT(EXCEPTION_RECORD);
    FIELD(EXCEPTION_RECORD, ExceptionCode);
    FIELD(EXCEPTION_RECORD, ExceptionFlags);
    FIELD(EXCEPTION_RECORD, ExceptionRecord);
    FIELD(EXCEPTION_RECORD, ExceptionAddress);
    FIELD(EXCEPTION_RECORD, NumberParameters);
    FIELD(EXCEPTION_RECORD, ExceptionInformation);
    STRUCT(EXCEPTION_DEBUG_INFO);
    FIELD(EXCEPTION_DEBUG_INFO, ExceptionRecord);
    FIELD(EXCEPTION_DEBUG_INFO, dwFirstChance);
}

static void of_processes(void)
{
    STRUCT(CREATE_PROCESS_DEBUG_INFO);
    FIELD(CREATE_PROCESS_DEBUG_INFO, hFile);
    FIELD(CREATE_PROCESS_DEBUG_INFO, hProcess);
    FIELD(CREATE_PROCESS_DEBUG_INFO, hThread);
    FIELD(CREATE_PROCESS_DEBUG_INFO, lpBaseOfImage);
    FIELD(CREATE_PROCESS_DEBUG_INFO, dwDebugInfoFileOffset);
    FIELD(CREATE_PROCESS_DEBUG_INFO, nDebugInfoSize);
    FIELD(CREATE_PROCESS_DEBUG_INFO, lpThreadLocalBase);
    FIELD(CREATE_PROCESS_DEBUG_INFO, lpStartAddress);
    FIELD(CREATE_PROCESS_DEBUG_INFO, lpImageName);
    FIELD(CREATE_PROCESS_DEBUG_INFO, fUnicode);
    STRUCT(EXIT_PROCESS_DEBUG_INFO);
    FIELD(EXIT_PROCESS_DEBUG_INFO, dwExitCode);
    STRUCT(CREATE_THREAD_DEBUG_INFO);
    FIELD(CREATE_THREAD_DEBUG_INFO, hThread);
    FIELD(CREATE_THREAD_DEBUG_INFO, lpThreadLocalBase);
    FIELD(CREATE_THREAD_DEBUG_INFO, lpStartAddress);
    STRUCT(EXIT_THREAD_DEBUG_INFO);
    FIELD(EXIT_THREAD_DEBUG_INFO, dwExitCode);
}

static void of_images(void)
{
    STRUCT(LOAD_DLL_DEBUG_INFO);
    FIELD(LOAD_DLL_DEBUG_INFO, hFile);
    FIELD(LOAD_DLL_DEBUG_INFO, lpBaseOfDll);
    FIELD(LOAD_DLL_DEBUG_INFO, dwDebugInfoFileOffset);
    FIELD(LOAD_DLL_DEBUG_INFO, nDebugInfoSize);
    FIELD(LOAD_DLL_DEBUG_INFO, lpImageName);
    FIELD(LOAD_DLL_DEBUG_INFO, fUnicode);
    STRUCT(UNLOAD_DLL_DEBUG_INFO);
    FIELD(UNLOAD_DLL_DEBUG_INFO, lpBaseOfDll);
}

static void of_events(void)
{
    STRUCT(OUTPUT_DEBUG_STRING_INFO);
    FIELD(OUTPUT_DEBUG_STRING_INFO, lpDebugStringData);
    FIELD(OUTPUT_DEBUG_STRING_INFO, fUnicode);
    FIELD(OUTPUT_DEBUG_STRING_INFO, nDebugStringLength);
    STRUCT(RIP_INFO);
    FIELD(RIP_INFO, dwError);
    FIELD(RIP_INFO, dwType);
    STRUCT(DEBUG_EVENT);
    FIELD(DEBUG_EVENT, dwDebugEventCode);
    FIELD(DEBUG_EVENT, dwProcessId);
    FIELD(DEBUG_EVENT, dwThreadId);
    FIELD(DEBUG_EVENT, u);
}

static void of_command_lines(void)
{
    STRUCT(UNICODE_STRING);
    FIELD(UNICODE_STRING, Length);
    FIELD(UNICODE_STRING, MaximumLength);
    FIELD(UNICODE_STRING, Buffer);
    STRUCT(PROCESS_BASIC_INFORMATION);
    FIELD(PROCESS_BASIC_INFORMATION, ExitStatus);
    FIELD(PROCESS_BASIC_INFORMATION, PebBaseAddress);
    FIELD(PROCESS_BASIC_INFORMATION, AffinityMask);
    FIELD(PROCESS_BASIC_INFORMATION, BasePriority);
    FIELD(PROCESS_BASIC_INFORMATION, UniqueProcessId);
    FIELD(PROCESS_BASIC_INFORMATION, InheritedFromUniqueProcessId);
    printf("PARAMETERS_IN_PEB %u\n", (unsigned)offsetof(PEB, ProcessParameters));
    printf("COMMAND_LINE_IN_PARAMETERS %u\n", (unsigned)offsetof(RTL_USER_PROCESS_PARAMETERS, CommandLine));
}

#define NUMBER(name) printf(#name " %lu\n", (unsigned long)(name))

static void numbers(void)
{
    NUMBER(DEBUG_PROCESS);
    NUMBER(DEBUG_ONLY_THIS_PROCESS);
    NUMBER(EXCEPTION_DEBUG_EVENT);
    NUMBER(CREATE_PROCESS_DEBUG_EVENT);
    NUMBER(EXIT_PROCESS_DEBUG_EVENT);
    NUMBER(LOAD_DLL_DEBUG_EVENT);
    NUMBER(UNLOAD_DLL_DEBUG_EVENT);
    NUMBER(OUTPUT_DEBUG_STRING_EVENT);
    NUMBER(RIP_EVENT);
    NUMBER(DBG_CONTINUE);
    NUMBER(DBG_EXCEPTION_NOT_HANDLED);
    NUMBER(EXCEPTION_MAXIMUM_PARAMETERS);
    NUMBER(ERROR_NOT_SUPPORTED);
    NUMBER(ERROR_SEM_TIMEOUT);
}

int main(void)
{
    of_exceptions();
    of_processes();
    of_images();
    of_events();
    of_command_lines();
    numbers();
    return 0;
}
