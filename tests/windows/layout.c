/*
 * Prints what the compiler makes of the ETW structs: "STRUCT sizeof" and "STRUCT.field offset size" lines.
 * Members of unions and of embedded structs are named by their full C path.
 */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0602
#include <windows.h>
#include <wmistr.h>
#include <evntrace.h>
#include <evntcons.h>
#include <stddef.h>
#include <stdio.h>

#define STRUCT(type) printf(#type " %u\n", (unsigned)sizeof(type))
#define FIELD(type, field) \
    printf(#type "." #field " %u %u\n", (unsigned)offsetof(type, field), (unsigned)sizeof(((type *)0)->field))

static void common(void)
{
    STRUCT(GUID);
    FIELD(GUID, Data1);
    FIELD(GUID, Data2);
    FIELD(GUID, Data3);
    FIELD(GUID, Data4);
    STRUCT(SYSTEMTIME);
    FIELD(SYSTEMTIME, wYear);
    FIELD(SYSTEMTIME, wMonth);
    FIELD(SYSTEMTIME, wDayOfWeek);
    FIELD(SYSTEMTIME, wDay);
    FIELD(SYSTEMTIME, wHour);
    FIELD(SYSTEMTIME, wMinute);
    FIELD(SYSTEMTIME, wSecond);
    FIELD(SYSTEMTIME, wMilliseconds);
    STRUCT(TIME_ZONE_INFORMATION);
    FIELD(TIME_ZONE_INFORMATION, Bias);
    FIELD(TIME_ZONE_INFORMATION, StandardName);
    FIELD(TIME_ZONE_INFORMATION, StandardDate);
    FIELD(TIME_ZONE_INFORMATION, StandardBias);
    FIELD(TIME_ZONE_INFORMATION, DaylightName);
    FIELD(TIME_ZONE_INFORMATION, DaylightDate);
    FIELD(TIME_ZONE_INFORMATION, DaylightBias);
    STRUCT(ETW_BUFFER_CONTEXT);
    FIELD(ETW_BUFFER_CONTEXT, ProcessorNumber);
    FIELD(ETW_BUFFER_CONTEXT, Alignment);
    FIELD(ETW_BUFFER_CONTEXT, ProcessorIndex);
    FIELD(ETW_BUFFER_CONTEXT, LoggerId);
}

static void controller(void)
{
    STRUCT(WNODE_HEADER);
    FIELD(WNODE_HEADER, BufferSize);
    FIELD(WNODE_HEADER, ProviderId);
    FIELD(WNODE_HEADER, HistoricalContext);
    FIELD(WNODE_HEADER, Version);
    FIELD(WNODE_HEADER, Linkage);
    FIELD(WNODE_HEADER, CountLost);
    FIELD(WNODE_HEADER, KernelHandle);
    FIELD(WNODE_HEADER, TimeStamp);
    FIELD(WNODE_HEADER, Guid);
    FIELD(WNODE_HEADER, ClientContext);
    FIELD(WNODE_HEADER, Flags);
    STRUCT(EVENT_TRACE_PROPERTIES);
    FIELD(EVENT_TRACE_PROPERTIES, Wnode);
    FIELD(EVENT_TRACE_PROPERTIES, BufferSize);
    FIELD(EVENT_TRACE_PROPERTIES, MinimumBuffers);
    FIELD(EVENT_TRACE_PROPERTIES, MaximumBuffers);
    FIELD(EVENT_TRACE_PROPERTIES, MaximumFileSize);
    FIELD(EVENT_TRACE_PROPERTIES, LogFileMode);
    FIELD(EVENT_TRACE_PROPERTIES, FlushTimer);
    FIELD(EVENT_TRACE_PROPERTIES, EnableFlags);
    FIELD(EVENT_TRACE_PROPERTIES, AgeLimit);
    FIELD(EVENT_TRACE_PROPERTIES, NumberOfBuffers);
    FIELD(EVENT_TRACE_PROPERTIES, FreeBuffers);
    FIELD(EVENT_TRACE_PROPERTIES, EventsLost);
    FIELD(EVENT_TRACE_PROPERTIES, BuffersWritten);
    FIELD(EVENT_TRACE_PROPERTIES, LogBuffersLost);
    FIELD(EVENT_TRACE_PROPERTIES, RealTimeBuffersLost);
    FIELD(EVENT_TRACE_PROPERTIES, LoggerThreadId);
    FIELD(EVENT_TRACE_PROPERTIES, LogFileNameOffset);
    FIELD(EVENT_TRACE_PROPERTIES, LoggerNameOffset);
}

static void records(void)
{
    STRUCT(EVENT_DESCRIPTOR);
    FIELD(EVENT_DESCRIPTOR, Id);
    FIELD(EVENT_DESCRIPTOR, Version);
    FIELD(EVENT_DESCRIPTOR, Channel);
    FIELD(EVENT_DESCRIPTOR, Level);
    FIELD(EVENT_DESCRIPTOR, Opcode);
    FIELD(EVENT_DESCRIPTOR, Task);
    FIELD(EVENT_DESCRIPTOR, Keyword);
    STRUCT(EVENT_HEADER);
    FIELD(EVENT_HEADER, Size);
    FIELD(EVENT_HEADER, HeaderType);
    FIELD(EVENT_HEADER, Flags);
    FIELD(EVENT_HEADER, EventProperty);
    FIELD(EVENT_HEADER, ThreadId);
    FIELD(EVENT_HEADER, ProcessId);
    FIELD(EVENT_HEADER, TimeStamp);
    FIELD(EVENT_HEADER, ProviderId);
    FIELD(EVENT_HEADER, EventDescriptor);
    FIELD(EVENT_HEADER, KernelTime);
    FIELD(EVENT_HEADER, UserTime);
    FIELD(EVENT_HEADER, ProcessorTime);
    FIELD(EVENT_HEADER, ActivityId);
    STRUCT(EVENT_RECORD);
    FIELD(EVENT_RECORD, EventHeader);
    FIELD(EVENT_RECORD, BufferContext);
    FIELD(EVENT_RECORD, ExtendedDataCount);
    FIELD(EVENT_RECORD, UserDataLength);
    FIELD(EVENT_RECORD, ExtendedData);
    FIELD(EVENT_RECORD, UserData);
    FIELD(EVENT_RECORD, UserContext);
}

static void old_records(void)
{
    STRUCT(EVENT_TRACE_HEADER);
    FIELD(EVENT_TRACE_HEADER, Size);
    FIELD(EVENT_TRACE_HEADER, FieldTypeFlags);
    FIELD(EVENT_TRACE_HEADER, HeaderType);
    FIELD(EVENT_TRACE_HEADER, MarkerFlags);
    FIELD(EVENT_TRACE_HEADER, Version);
    FIELD(EVENT_TRACE_HEADER, Class.Type);
    FIELD(EVENT_TRACE_HEADER, Class.Level);
    FIELD(EVENT_TRACE_HEADER, Class.Version);
    FIELD(EVENT_TRACE_HEADER, ThreadId);
    FIELD(EVENT_TRACE_HEADER, ProcessId);
    FIELD(EVENT_TRACE_HEADER, TimeStamp);
    FIELD(EVENT_TRACE_HEADER, Guid);
    FIELD(EVENT_TRACE_HEADER, GuidPtr);
    FIELD(EVENT_TRACE_HEADER, KernelTime);
    FIELD(EVENT_TRACE_HEADER, UserTime);
    FIELD(EVENT_TRACE_HEADER, ProcessorTime);
    FIELD(EVENT_TRACE_HEADER, ClientContext);
    FIELD(EVENT_TRACE_HEADER, Flags);
    STRUCT(EVENT_TRACE);
    FIELD(EVENT_TRACE, Header);
    FIELD(EVENT_TRACE, InstanceId);
    FIELD(EVENT_TRACE, ParentInstanceId);
    FIELD(EVENT_TRACE, ParentGuid);
    FIELD(EVENT_TRACE, MofData);
    FIELD(EVENT_TRACE, MofLength);
    FIELD(EVENT_TRACE, ClientContext);
    FIELD(EVENT_TRACE, BufferContext);
}

static void log_files(void)
{
    STRUCT(TRACE_LOGFILE_HEADER);
    FIELD(TRACE_LOGFILE_HEADER, BufferSize);
    FIELD(TRACE_LOGFILE_HEADER, Version);
    FIELD(TRACE_LOGFILE_HEADER, ProviderVersion);
    FIELD(TRACE_LOGFILE_HEADER, NumberOfProcessors);
    FIELD(TRACE_LOGFILE_HEADER, EndTime);
    FIELD(TRACE_LOGFILE_HEADER, TimerResolution);
    FIELD(TRACE_LOGFILE_HEADER, MaximumFileSize);
    FIELD(TRACE_LOGFILE_HEADER, LogFileMode);
    FIELD(TRACE_LOGFILE_HEADER, BuffersWritten);
    FIELD(TRACE_LOGFILE_HEADER, LogInstanceGuid);
    FIELD(TRACE_LOGFILE_HEADER, StartBuffers);
    FIELD(TRACE_LOGFILE_HEADER, PointerSize);
    FIELD(TRACE_LOGFILE_HEADER, EventsLost);
    FIELD(TRACE_LOGFILE_HEADER, CpuSpeedInMHz);
    FIELD(TRACE_LOGFILE_HEADER, LoggerName);
    FIELD(TRACE_LOGFILE_HEADER, LogFileName);
    FIELD(TRACE_LOGFILE_HEADER, TimeZone);
    FIELD(TRACE_LOGFILE_HEADER, BootTime);
    FIELD(TRACE_LOGFILE_HEADER, PerfFreq);
    FIELD(TRACE_LOGFILE_HEADER, StartTime);
    FIELD(TRACE_LOGFILE_HEADER, ReservedFlags);
    FIELD(TRACE_LOGFILE_HEADER, BuffersLost);
    STRUCT(EVENT_TRACE_LOGFILEW);
    FIELD(EVENT_TRACE_LOGFILEW, LogFileName);
    FIELD(EVENT_TRACE_LOGFILEW, LoggerName);
    FIELD(EVENT_TRACE_LOGFILEW, CurrentTime);
    FIELD(EVENT_TRACE_LOGFILEW, BuffersRead);
    FIELD(EVENT_TRACE_LOGFILEW, LogFileMode);
    FIELD(EVENT_TRACE_LOGFILEW, ProcessTraceMode);
    FIELD(EVENT_TRACE_LOGFILEW, CurrentEvent);
    FIELD(EVENT_TRACE_LOGFILEW, LogfileHeader);
    FIELD(EVENT_TRACE_LOGFILEW, BufferCallback);
    FIELD(EVENT_TRACE_LOGFILEW, BufferSize);
    FIELD(EVENT_TRACE_LOGFILEW, Filled);
    FIELD(EVENT_TRACE_LOGFILEW, EventsLost);
    FIELD(EVENT_TRACE_LOGFILEW, EventCallback);
    FIELD(EVENT_TRACE_LOGFILEW, EventRecordCallback);
    FIELD(EVENT_TRACE_LOGFILEW, IsKernelTrace);
    FIELD(EVENT_TRACE_LOGFILEW, Context);
}

int main(void)
{
    common();
    controller();
    records();
    old_records();
    log_files();
    return 0;
}
