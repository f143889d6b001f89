package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/mount"
)

// host looks whether the host, and the process of the driver, are fit for it.
func (r *Report) host(ctx context.Context, o Options, f conn.Facts) {
	r.warnings(f.Quirks)
	r.socket(conn.SocketPath(o.Endpoint))
	pid, err := conn.ServedBy(ctx, o.Endpoint)
	p := process(pid)
	if err != nil {
		r.add("process", Warn, "which process listens cannot be told, so that what it may do was not looked at", "")
	} else {
		r.Driver.Process = int(p)
		r.rights(p, f)
		r.tools(p, f.Quirks)
	}
	r.mounts(p, o.Dir)
	r.modules("/", f.Quirks.Needs(quirk.NeedsModules))
}

// warnings are the quirks that nothing done here makes good.
func (r *Report) warnings(q quirk.Set) {
	if q.Has(quirk.OnlyKubernetes) {
		r.add("kubernetes", Fail, "the driver keeps its volumes as objects of Kubernetes, and cannot be used without a cluster", "take another driver for this storage, if there is one")
	}
	if q.Has(quirk.StealsDisks) {
		r.add("two hosts", Warn, "an attach takes a disk from the host that has it, without asking",
			"see that no volume of this driver is mounted at two hosts: neither the storage nor the driver keeps you from it")
	}
}

// socket looks who may use the driver: whoever may open its socket is lord of the storage.
func (r *Report) socket(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o002 != 0 && open(filepath.Dir(path)) {
		r.add("socket", Warn, path+" may be used by everybody on this host, and with it all volumes", "chmod 0600 "+path)
	}
}

// open reports whether everybody may pass through a directory and those above it.
func open(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

func (r *Report) rights(p process, f conn.Facts) {
	who := fmt.Sprintf("process %d (%s)", p, p.name())
	admin, known := conn.Capable(int(p), unix.CAP_SYS_ADMIN)
	if !known {
		r.add("process", Warn, who+": its rights cannot be read", "")
		return
	}
	if !admin {
		r.add("process", Fail, who+" lacks the capability CAP_SYS_ADMIN, and can mount nothing", "run the driver as root, with that capability")
		return
	}
	grows := f.Node.Has(csi.NodeServiceCapability_RPC_EXPAND_VOLUME) || f.Quirks.Has(quirk.NeedsSysResource)
	if has, _ := conn.Capable(int(p), unix.CAP_SYS_RESOURCE); !has && grows {
		r.add("process", Warn, who+" lacks the capability CAP_SYS_RESOURCE: ext4 cannot be grown while it is mounted, and is refused to be",
			"give it that capability, or use -o fs=xfs")
		return
	}
	r.add("process", OK, who+" may mount", "")
	if f.Quirks.Has(quirk.NeedsOwnRoot) && !p.ownRoot() {
		r.add("files", Warn, "the driver runs in the host's own root directory, and wants files of its image", "run it from its image")
	}
}

func (r *Report) tools(p process, q quirk.Set) {
	needs := q.Needs(quirk.NeedsTools)
	if len(needs) == 0 {
		return
	}
	var missing []string
	for _, tool := range needs {
		if !p.finds(tool) {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		r.add("programs", Warn, "the driver does not find "+strings.Join(missing, ", "), "run it from its own image, or install them where it looks")
		return
	}
	r.add("programs", OK, "the driver finds "+strings.Join(needs, ", "), "")
}

// mounts looks whether what the driver mounts is seen here, and by engines.
func (r *Report) mounts(p process, dir string) {
	shared, at, err := mount.Shared(dir)
	switch {
	case err != nil:
		r.add("mounts", Warn, err.Error(), "")
		return
	case p == 0:
		r.add("mounts", OK, "volumes will be mounted below "+dir, "")
		return
	}
	same, err := p.sameMounts()
	if err != nil {
		r.add("mounts", Warn, "where the driver mounts cannot be told: "+err.Error(), "")
		return
	}
	if same && p.ownRoot() {
		r.add("mounts", Warn, "the driver has a root directory of its own", fmt.Sprintf("see that %s is bound there at the same path, with mount --rbind", dir))
		return
	}
	if same {
		text := "the driver mounts where this host sees it"
		if !shared {
			text += "; " + at + " is not shared, and what lies below " + dir + " is made so"
		}
		r.add("mounts", OK, text, "")
		return
	}
	theirs, err := p.peers(dir)
	ours, oerr := process(os.Getpid()).peers(dir)
	if err := errors.Join(err, oerr); err != nil {
		r.add("mounts", Warn, err.Error(), "")
		return
	}
	if theirs == "" || theirs != ours {
		r.add("mounts", Warn, "the driver has mounts of its own, and what it mounts below "+dir+" is not seen here",
			fmt.Sprintf("give its container %s at the same path with propagation rshared, such as --mount type=bind,source=%s,target=%s,bind-propagation=rshared", dir, dir, dir))
		return
	}
	r.add("mounts", OK, "what the driver mounts in its container is seen here", "")
}

// modules looks for kernel modules: loaded, built in, or there to be loaded.
func (r *Report) modules(root string, needs []string) {
	var missing []string
	for _, name := range needs {
		if !hasModule(root, name) {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0:
		r.add("kernel", Fail, "this kernel lacks "+strings.Join(missing, ", "), "install the package of the kernel's modules, or another kernel")
	case len(needs) > 0:
		r.add("kernel", OK, "it has "+strings.Join(needs, ", "), "")
	}
}

func hasModule(root, name string) bool {
	if _, err := os.Stat(filepath.Join(root, "sys/module", name)); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if text, err := os.ReadFile(filepath.Join(root, "proc/filesystems")); err == nil {
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
				return true
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true // nobody knows
	}
	dir := filepath.Join(root, "lib/modules", unix.ByteSliceToString(u.Release[:]))
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		text, err := os.ReadFile(filepath.Join(dir, list))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			base, _, ok := strings.Cut(filepath.Base(file), ".ko")
			if ok && strings.ReplaceAll(base, "-", "_") == strings.ReplaceAll(name, "-", "_") {
				return true
			}
		}
	}
	return false
}
