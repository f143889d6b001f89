package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// InVM is the variable of the environment that a test has inside the virtual machine.
const InVM = "REMORA_TEST_VM"

// VM is the inside of the virtual machine that internal/testvm starts, in which a test has
// what the kernel outside may lack. Such a test is called TestVM…; "make vm" runs it.
var VM = Need{"vm", func() error {
	if os.Getenv(InVM) != "" {
		return nil
	}
	if _, err := FindMachine(); err != nil {
		return err
	}
	return errors.New("runs inside a virtual machine only, by: make vm")
}}

// Machine is what a virtual machine is made of.
type Machine struct {
	Qemu      string // the emulator
	Virtiofsd string // shows the file system of this host to the machine
	Kernel    string // the image to boot
	Modules   string // the directory with the modules of that kernel, and their modules.dep
}

// virtiofsds are where distributions have the program: qemu's own, and its successor.
var virtiofsds = []string{"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"}

// FindMachine looks for the parts, which test/setup.sh installs.
var FindMachine = sync.OnceValues(func() (m Machine, err error) {
	if runtime.GOARCH != "amd64" {
		return m, errors.New("virtual machines are made for amd64 only")
	}
	if err := root(); err != nil {
		return m, err
	}
	if m.Qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return m, errors.New("no qemu-system-x86_64 in PATH; install qemu-system-x86")
	}
	for _, path := range virtiofsds {
		if _, err := os.Stat(path); err == nil {
			m.Virtiofsd = path
		}
	}
	if m.Virtiofsd == "" {
		return m, fmt.Errorf("no %s; install qemu-system-common or virtiofsd", strings.Join(virtiofsds, " or "))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return m, err
	}
	deps, _ := filepath.Glob(cache + "/remora-tools/kernel/*/lib/modules/*/modules.dep")
	if len(deps) == 0 {
		return m, fmt.Errorf("no kernel below %s/remora-tools/kernel; run test/setup.sh", cache)
	}
	m.Modules = filepath.Dir(deps[len(deps)-1])
	m.Kernel = filepath.Join(m.Modules, "../../../boot/vmlinuz-"+filepath.Base(m.Modules))
	_, err = os.Stat(m.Kernel)
	return m, err
})
