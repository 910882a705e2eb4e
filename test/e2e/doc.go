// Package e2e lets the real package live on a machine in a folder, with the
// guest agent's stand-in and the workspace emulator around it.
package e2e
