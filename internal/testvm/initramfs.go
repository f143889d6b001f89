package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What lies in the file system that the machine starts from, beside this program.
const (
	jobName    = "job.json"
	modulesDir = "modules"
)

// job is what the machine is to do.
type job struct {
	Modules string // where they lie on the host
	Dir     string
	Args    []string
	Env     []string
}

// bootModules are what it takes to see the host's file system and to talk, and loop, for which
// a device must be there before it is asked for. The kernel has others loaded by modprobe when
// they are wanted.
var bootModules = []string{"virtio_pci", "virtiofs", "overlay", "virtio_console", "loop"}

// initramfs makes the file system that the machine starts from.
func initramfs(modules string, j job) ([]byte, error) {
	var a archive
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	a.file("init", 0o755, self)
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	a.file(jobName, 0o600, text)
	for _, dir := range []string{modulesDir, "proc", "sys", "dev", "host", "layer", "root"} {
		a.add(dir, 0o040755, nil)
	}
	paths, err := withDependencies(modules, bootModules)
	if err != nil {
		return nil, err
	}
	for i, path := range paths {
		text, err := os.ReadFile(filepath.Join(modules, path))
		if err != nil {
			return nil, err
		}
		a.file(fmt.Sprintf("%s/%02d-%s", modulesDir, i, filepath.Base(path)), 0o600, text)
	}
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes(), nil
}

// withDependencies returns the files of modules in the order in which they can be loaded.
// A module that modules.dep(5) does not have is part of the kernel.
func withDependencies(dir string, names []string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var order []string
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return order, lines.Err()
		}
		path, needs, _ := strings.Cut(lines.Text(), ":")
		name, _, _ := strings.Cut(filepath.Base(path), ".ko")
		if !slices.Contains(names, name) {
			continue
		}
		files := append([]string{path}, strings.Fields(needs)...)
		for _, file := range slices.Backward(files) {
			if !slices.Contains(order, file) {
				order = append(order, file)
			}
		}
	}
}

// archive is a cpio archive in the form that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	bytes.Buffer
	inode int
}

func (a *archive) file(name string, perm uint32, content []byte) { a.add(name, 0o100000|perm, content) }

func (a *archive) add(name string, mode uint32, content []byte) {
	a.inode++
	links := 1
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}
