// Package workspace speaks the protocol of a Log Analytics workspace: it
// onboards this machine with the workspace key, and from then on delivers
// batches with the certificate that the workspace has registered for it.
//
// The protocol is that of the OMS agent for Linux (omsadmin.sh, the agent's
// maintenance script and its out_oms output), with these differences: the
// server is verified in every call, the one with the key included; no redirect
// is followed; a proxy that does not work is never gone around.
//
// Connections are made with HTTP/1.1. The service asks for the client
// certificate by means that HTTP/2 does not have on all of its front ends, and
// every agent known to work with it speaks HTTP/1.1.
package workspace
