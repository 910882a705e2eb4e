package fakeguest

import "os/exec"

func ownSession(*exec.Cmd) {}
