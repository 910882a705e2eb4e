// Package logfile is the product's own log: lines in a file that rotates
// within a fixed number of bytes, with no secret and no control character in
// it, and with repeats summarised.
package logfile
