package registry

import (
	"os"
	"syscall"
)

func stat(fi os.FileInfo) *syscall.Stat_t { return fi.Sys().(*syscall.Stat_t) }
