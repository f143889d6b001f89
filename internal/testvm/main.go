// Testvm runs a test binary in a small virtual machine: what "go test -exec" wants of a
// program, for the tests that need more of a kernel than the one of this host has.
//
//	go build -o bin/testvm ./internal/testvm
//	go test -exec $PWD/bin/testvm -run '^TestVM' ./drivers/volume/mount
//
// The machine is qemu without KVM, which not everybody has, with the kernel of a Debian
// package (test/setup.sh). Its root is the file system of this host as it is, read-only
// (virtiofs), below a layer in memory that takes what is written: the machine has the
// programs that the host has, and the host keeps nothing of what is done in it. The first
// process is this same program. It starts the binary in the directory, with the arguments
// and the environment that go test meant, sends its output through one virtual port and its
// exit status through another. One more variable says where it is ([testenv.InVM]).
//
// Where the parts are missing the binary runs here, and its tests say what to install.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/remora-plugins/remora/internal/testenv"
)

func main() {
	ctx := context.Background()
	if os.Getpid() == 1 {
		guest(ctx)
		return
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: testvm BINARY [ARGUMENT]...")
		os.Exit(2)
	}
	runtime.LockOSThread() // what it starts dies with the thread
	m, err := testenv.FindMachine()
	if err != nil {
		os.Exit(here(ctx, os.Args[1:]))
	}
	status, err := boot(ctx, m, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testvm:", err)
		status = 1
	}
	os.Exit(status)
}
