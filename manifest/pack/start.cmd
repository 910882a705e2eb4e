@echo off
rem Starts the binary for this machine.
if /i "%PROCESSOR_ARCHITECTURE%"=="ARM64" ("%~dp0log-analytics-agent-windows-arm64.exe" %*) else ("%~dp0log-analytics-agent-windows-amd64.exe" %*)
exit /b %ERRORLEVEL%
