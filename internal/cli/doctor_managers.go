package cli

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// manager is a program that configures the interfaces of a host, and the file that keeps it from Remora's.
type manager struct {
	name    string
	process string // as the kernel has it, of 15 letters at most
	dirs    []string
	file    string
	mend    string
}

var managers = []manager{
	{
		"systemd-networkd",
		"systemd-network",
		[]string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"},
		"05-remora.network",
		`printf '[Match]\nName=rm-* rmv*\n\n[Link]\nUnmanaged=yes\n' >/etc/systemd/network/05-remora.network && networkctl reload`,
	},
	{
		"NetworkManager",
		"NetworkManager",
		[]string{"/etc/NetworkManager/conf.d", "/run/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d"},
		"90-remora.conf",
		`printf '[device-remora]\nmatch-device=interface-name:rm-*,interface-name:rmv*\nmanaged=0\n' >/etc/NetworkManager/conf.d/90-remora.conf && nmcli general reload`,
	},
}

// networkManagers looks whether programs that configure this host's interfaces leave Remora's alone. root is /.
func (d *doctor) networkManagers(root string) {
	const check = "network"
	running := processes(root)
	for _, m := range managers {
		if !running[m.process] {
			continue
		}
		if !m.kept(root) {
			d.warn(check, m.name+" runs, and is not told to leave Remora's interfaces alone: it may take their addresses and routes away", m.mend)
			continue
		}
		d.ok(check, m.name+" leaves Remora's interfaces alone")
	}
	if !running[managers[0].process] {
		return
	}
	links, err := net.Interfaces()
	if err != nil {
		return
	}
	for _, l := range links {
		if !strings.HasPrefix(l.Name, "rm-") && !strings.HasPrefix(l.Name, "rmv") {
			continue
		}
		if by := managedBy(root, l.Index); by != "" {
			d.warn(check, fmt.Sprintf("systemd-networkd manages %s, by %s", l.Name, by),
				"have that file match fewer names, or give it a number that comes after 05; then networkctl reload")
		}
	}
}

func (m manager) kept(root string) bool {
	for _, dir := range m.dirs {
		if _, err := os.Stat(filepath.Join(root, dir, m.file)); err == nil {
			return true
		}
	}
	return false
}

// processes are the names of those that run in this network namespace.
func processes(root string) map[string]bool {
	names := map[string]bool{}
	own, _ := os.Readlink(filepath.Join(root, "/proc/self/ns/net"))
	all, _ := filepath.Glob(filepath.Join(root, "/proc/[0-9]*/comm")) // the pattern is right
	for _, file := range all {
		name, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if ns, err := os.Readlink(filepath.Join(filepath.Dir(file), "ns/net")); err == nil && ns == own {
			names[strings.TrimSpace(string(name))] = true
		}
	}
	return names
}

// managedBy is the file by which systemd-networkd configures an interface; empty if it does not.
func managedBy(root string, index int) (file string) {
	text, err := os.ReadFile(filepath.Join(root, "/run/systemd/netif/links", strconv.Itoa(index)))
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		switch {
		case key == "ADMIN_STATE" && (value == "unmanaged" || value == "pending" || value == "initialized"):
			return ""
		case key == "NETWORK_FILE":
			file = value
		}
	}
	return file
}
