package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/remora-plugins/remora/internal/csi/csitest"
)

// csiDriver is a CSI driver in a process of its own: csi-driver DIR SOCKET OPTIONS [CONTROLLER].
func csiDriver() {
	var o csitest.Options
	args := append(os.Args[1:], "")
	err := json.Unmarshal([]byte(args[2]), &o)
	if err == nil {
		err = os.MkdirAll(args[0], 0o700)
	}
	if err == nil {
		err = csitest.Serve(o, args[0], args[1], args[3])
	}
	fmt.Fprintln(os.Stderr, "csi-driver:", err)
	os.Exit(1)
}
