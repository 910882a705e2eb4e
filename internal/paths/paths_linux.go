package paths

import "github.com/openloganalytics/agent/internal/product"

const binaryName = product.Name

var (
	versionsDir = []string{"/", "opt", product.Name}
	stateDir    = []string{"/", "var", "lib", product.Name}
	runDir      = []string{"/", "run", product.Name}
	logDir      = []string{"/", "var", "log", product.Name}
)
