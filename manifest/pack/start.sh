#!/bin/sh
# Starts the binary for this machine: a package keeps neither links nor modes.
case $(uname -m) in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) echo "log-analytics-agent: no binary for the processor $(uname -m), only x86_64 and aarch64" >&2; exit 51 ;;
esac
exec "${0%/*}/log-analytics-agent-linux-$arch" "$@"
