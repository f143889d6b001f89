package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// errTold marks what the program said before it gave up, so that there may be something
// to be done about it.
var errTold = errors.New("the program gave up")

// Mount has the volume mounted at target, unless it is mounted there and answers. A mount
// whose program has gone is replaced; one whose server does not answer is not, as it comes
// back by itself.
func (d *driver) Mount(ctx context.Context, name, target string) (string, error) {
	f, err := d.facts(name)
	if err != nil {
		return "", err
	}
	if target == "" {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "there is no mountpoint to mount at")
	}
	done, err := d.store.Working()
	if err != nil {
		return "", state.Classify(err)
	}
	defer done()
	for {
		m, ok, err := remote.At(target)
		if err != nil {
			return "", err
		}
		if !ok {
			break
		}
		if rec, known := d.record(target); !known || !rec.is(m) || rec.ID != f.ID {
			return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "something else is mounted at %s: %s", target, m.Source), "unmount it: umount "+target)
		}
		err = d.look(ctx, f, target)
		if err == nil {
			return target, nil
		}
		if !errors.Is(err, remote.ErrDead) {
			return "", errdefs.Hint(fmt.Errorf("%s: %w", f.Device, err), "the mount works again by itself when the server is back")
		}
		d.log.WarnContext(ctx, "what served the volume has ended, mounting again", "volume", name)
		if err := remote.Detach(target); err != nil {
			return "", err
		}
	}
	if err := d.attach(ctx, f, target); err != nil {
		return "", err
	}
	return target, nil
}

// attach mounts. A directory below the pool's device is made at its first mount, for which
// that one is mounted for a moment.
func (d *driver) attach(ctx context.Context, f facts, target string) error {
	err := d.mount(ctx, f, target)
	if f.Base == "" || !errors.Is(err, errTold) {
		return err
	}
	if err := d.makeDirectory(ctx, f); err != nil {
		return err
	}
	return d.mount(ctx, f, target)
}

// job collects what has a say in how a volume is mounted, but for the password.
func (d *driver) job(f facts) (fsType, job, error) {
	f = d.withPool(f)
	t, err := typeOf(f.Type)
	if err != nil {
		return t, job{}, err
	}
	if t.block && !d.config.AllowDevices {
		return t, job{}, errNoDevices(f.Type)
	}
	opts, err := t.check(f.Options, d.config.Allow, nil)
	if err != nil {
		return t, job{}, err
	}
	below := t.defaults
	if f.Type == d.config.Type {
		pool, err := d.poolOptions(t)
		if err != nil {
			return t, job{}, errdefs.Errorf(errdefs.ErrInvalid, "key \"options\": %w", err)
		}
		below = merge(below, pool)
	}
	j := job{f: f, opts: merge(below, opts), cache: filepath.Join(d.dir, cacheName, f.ID)}
	for key, val := range j.opts {
		if k, _ := t.kindOf(key); k == file {
			if j.opts[key], err = remote.SecretPath(d.secrets, val); err != nil {
				return t, job{}, err
			}
		}
	}
	if j.f.Config, err = remote.SecretPath(d.secrets, f.Config); err != nil {
		return t, job{}, err
	}
	return t, j, nil
}

// mount mounts a device, and makes sure that it is there and answers.
func (d *driver) mount(ctx context.Context, f facts, target string) (err error) {
	t, j, err := d.job(f)
	if err != nil {
		return err
	}
	if !installed(t.helper) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "program %q is not installed", t.helper), "install the package that has it, such as by: apt install "+t.pkg)
	}
	if t.block {
		if err := checkBlock(f.Device); err != nil {
			return err
		}
	}
	if j.password, err = d.password(j.f); err != nil {
		return err
	}
	if err := probe(ctx, t.servers(j)); err != nil {
		return err
	}
	if j.password, err = obscure(ctx, j.f, j.password); err != nil {
		return err
	}
	rec := record{Volume: f.Name, ID: f.ID, Mountpoint: target, Types: t.fsTypes}
	if j.dir, err = d.note(rec); err != nil {
		return err
	}
	j.target = target
	defer func() {
		if err != nil {
			err = errors.Join(err, d.forget(target))
		}
	}()
	p, err := t.build(j)
	if err != nil {
		return err
	}
	for name, text := range p.files {
		if err := os.WriteFile(j.file(name), []byte(text), 0o600); err != nil {
			return state.Classify(err)
		}
	}
	if err := settle(ctx, t, target); err != nil {
		return err
	}
	for _, cmd := range p.before {
		if told, err := cmd.Run(ctx); err != nil {
			return t.failed(f, told, err)
		}
	}
	told, err := p.cmd.Run(ctx)
	if err == nil && strings.Contains(told, "mounting anyway") { // davfs2, to a server that does not answer
		err = errdefs.Errorf(errdefs.ErrUnavailable, "%s: the server cannot be reached", f.Device)
	} else if err != nil {
		err = t.failed(f, told, err)
	} else if err = d.looks.At(ctx, target); err == nil {
		m, ok, e := remote.At(target)
		if e != nil || !ok || !rec.is(m) {
			err = errdefs.Errorf(errdefs.ErrUnavailable, "%s has mounted nothing at %s", p.cmd.Name, target)
		}
	}
	if err == nil {
		return nil
	}
	if m, ok, e := remote.At(target); e == nil && ok && rec.is(m) { // a program that was killed may have mounted already
		err = errors.Join(err, remote.Detach(target))
	}
	return err
}

// installed looks where mount(8) does too.
func installed(program string) bool {
	for _, name := range []string{program, "/sbin/" + program, "/usr/sbin/" + program} {
		if _, err := exec.LookPath(name); err == nil {
			return true
		}
	}
	return false
}

func checkBlock(device string) error {
	fi, err := os.Stat(device)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "device: %w", err)
	}
	if fi.Mode().Type() != os.ModeDevice {
		return errdefs.Errorf(errdefs.ErrInvalid, "device: %s is not a block device", device)
	}
	return nil
}

// makeDirectory makes the directory of a volume below the pool's device, which is mounted
// for that moment at a place of its own.
func (d *driver) makeDirectory(ctx context.Context, f facts) (err error) {
	place, err := os.MkdirTemp(d.run, "base-")
	if err != nil {
		return state.Classify(err)
	}
	defer func() {
		if e := d.Unmount(context.WithoutCancel(ctx), f.Name, place); e != nil {
			_ = remote.Detach(place)
		}
		_ = os.Remove(place)
	}()
	base := f
	base.Device = f.Base
	if err := d.mount(ctx, base, place); err != nil {
		return err
	}
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(filepath.Join(place, f.Name), 0o755) }()
	select {
	case err = <-made:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	class := errdefs.ErrUnavailable
	if errors.Is(err, os.ErrPermission) {
		class = errdefs.ErrDenied
	}
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	return errdefs.Errorf(class, "%s cannot be made: %w", f.Device, err)
}

// sendTime bounds how long Unmount waits for what is left to be sent, and endTime how long for a program that has no more to do than to
// end: it goes on for as long as somebody's mount namespace of its own has the mount.
const sendTime, endTime = 20 * time.Second, 2 * time.Second

// Unmount takes away what is mounted at mountpoint, whether it answers or not, and waits
// for a program that has something to send yet.
func (d *driver) Unmount(ctx context.Context, name, mountpoint string) error {
	if err := d.looks.Unmount(ctx, mountpoint); err != nil {
		return err
	}
	rec, known := d.record(mountpoint)
	if known {
		var err error
		switch {
		case slices.Contains(rec.Types, "fuse"):
			ctx, cancel := context.WithTimeout(ctx, sendTime)
			defer cancel()
			err = settle(ctx, types["davfs"], mountpoint)
		case slices.Contains(rec.Types, rcloneType):
			ctx, cancel := context.WithTimeout(ctx, endTime)
			defer cancel()
			err = rcloneEnds(ctx, mountpoint)
		}
		if err != nil {
			d.log.WarnContext(ctx, "the program of the volume goes on", "volume", name, "error", err)
		}
	}
	return d.forget(mountpoint)
}
