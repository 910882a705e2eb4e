// A module of its own, so that what we compare with is no part of the product.
module github.com/openloganalytics/agent/test/gosyslog

go 1.26.0

replace github.com/openloganalytics/agent => ../..

require (
	github.com/leodido/go-syslog/v4 v4.6.0
	github.com/openloganalytics/agent v0.0.0-00010101000000-000000000000
)

require (
	github.com/sirupsen/logrus v1.10.2 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
