// Package transform carries out, on this machine, the transformations of a
// data collection rule: rows of a source are filtered, their columns renamed,
// dropped, taken out of JSON, XML or CEF, or summed up over a window of time,
// before anything is sent. It also redacts secrets.
//
// The processors and their configuration are those that Azure documents for
// client-side transformations (Microsoft Learn, "Structure of a data collection
// rule", section Transformations, api-version 2025-05-11). What that page leaves
// open is decided as in KQL: == and != mind the case of letters, contains does
// not; a column without a value is equal to nothing.
package transform
