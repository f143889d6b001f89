// Command remora is the daemon that serves volumes to Docker and Podman, and the command
// line that talks to it.
package main

import (
	"context"
	"os"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/cli"
	"github.com/remora-plugins/remora/internal/daemon"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(),
		Drivers: all.Volumes(), Network: all.Network(), RunDaemon: daemon.Run,
	}))
}
