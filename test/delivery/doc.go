// Package delivery lets the real agent deliver the lines of a file to the
// workspace emulator, through a proxy and with TLS, while everything goes wrong
// that is in the table of upload hazards. Each test ends with the account: every
// line that was read is delivered, waiting, refused or dropped.
package delivery
