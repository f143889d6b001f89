package e2e

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSocketWithoutPool has systemd's socket for a pool that the configuration has not, or
// has no more. An engine that finds it is answered at once, and works with the pool as soon
// as there is one, without a restart of either.
func TestSocketWithoutPool(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	h.Must("mkdir", "-p", "/run/docker/plugins")
	const without, with = "version = 1\n[pool.fast]\n", "version = 1\n[pool.fast]\n[pool.remora]\n"
	h.Write("/etc/remora/remora.toml", without)
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.Path("/run/docker/plugins/remora.sock"), Net: "unix"})
	noErr(t, err)
	defer socket.Close()
	f, err := socket.File()
	noErr(t, err)
	defer f.Close()
	cmd := h.Command(context.WithoutCancel(t.Context()), "sh", "-c", `LISTEN_PID=$$ exec "$0" daemon`, l.Remora)
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=remora")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = t.Output()
	noErr(t, cmd.Start())
	defer func() {
		noErr(t, cmd.Process.Signal(syscall.SIGTERM))
		noErr(t, cmd.Wait())
	}()
	eventually(t, 30*time.Second, func() bool {
		_, err := h.Cli("status")
		return err == nil
	})
	h.Dockerd()

	quick := func(what string, do func()) {
		t.Helper()
		start := time.Now()
		do()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %s", what, took)
		}
	}
	quick("list", func() { h.MustDocker("volume", "ls") })
	quick("create", func() { want(t, h.Fails("docker", "volume", "create", "-d", "remora", "v"), "has no pool for it") })

	h.Write("/etc/remora/remora.toml", with)
	h.MustCli("reload")
	h.MustDocker("volume", "create", "-d", "remora", "--label", "of=mine", "v")

	h.Write("/etc/remora/remora.toml", without)
	h.MustCli("reload")
	quick("list without the pool", func() { h.MustDocker("volume", "ls") })
	if text := h.Fails("docker", "volume", "inspect", "v"); strings.Contains(strings.ToLower(text), "no such volume") {
		t.Errorf("the engine takes a pool that is not there for a volume that is gone: %s", text)
	}
	h.Write("/etc/remora/remora.toml", with)
	h.MustCli("reload")
	want(t, h.MustDocker("volume", "inspect", "v"), `"of": "mine"`)
	h.MustDocker("volume", "rm", "v")
}
