package sshfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	_ volume.Driver    = (*driver)(nil)
	_ volume.Inspector = (*driver)(nil)
	_ volume.Pinger    = (*driver)(nil)
)

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }

// offline opens a pool that no server is behind.
func offline(t testing.TB, dir string, table map[string]any) *driver {
	t.Helper()
	d, err := openPool(t, dir, nil, table)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCreateWorksOffline(t *testing.T) {
	dir := t.TempDir()
	d := offline(t, dir, nil)
	opts := map[string]string{"sshcmd": "me@192.0.2.1:/data", "allow_other": "", "reconnect": "", "uid": "1000", "serveraliveinterval": "3", "password": "hunter22"}
	for range 2 {
		if err := d.Create(t.Context(), "v", opts); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = offline(t, dir, nil) // a restart
	info, err := d.Inspect(t.Context(), "v")
	if err != nil || info.Status["remote"] != "me@192.0.2.1:/data" || info.Status["state"] != "not mounted" || info.Options["uid"] != "1000" {
		t.Errorf("inspected as %+v, %v", info, err)
	}
	if js, err := json.Marshal(info); err != nil || strings.Contains(string(js), "hunter22") {
		t.Errorf("inspected as %s, %v", js, err)
	}
	if age := time.Since(info.CreatedAt); age < 0 || age > time.Minute {
		t.Errorf("created at %v", info.CreatedAt)
	}
	if err := d.Create(t.Context(), "v", nil); err != nil {
		t.Errorf("adopt: %v", err)
	}
	opts["sshcmd"] = "me@192.0.2.1:/other"
	remotetest.WantErr(t, d.Create(t.Context(), "v", opts), errdefs.ErrExists, "it points to me@192.0.2.1:/data at port 22 already")
	opts["sshcmd"], opts["uid"] = "me@192.0.2.1:/data", "1001"
	remotetest.WantErr(t, d.Create(t.Context(), "v", opts), errdefs.ErrExists, "other options")
	if err := d.Remove(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	remotetest.WantErr(t, d.Remove(t.Context(), "v"), errdefs.ErrNotFound, "no such volume")
	if entries, err := os.ReadDir(dir + "/state/sshfs/test/volumes"); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWrongOptions(t *testing.T) {
	dir := t.TempDir()
	d := offline(t, dir, map[string]any{"allow": []any{"ProxyJump"}})
	const sshcmd = "u@h:/p"
	for _, tt := range []struct {
		opts map[string]string
		want string
	}{
		{map[string]string{}, `option "sshcmd" is missing`},
		{map[string]string{"sshcmd": ""}, `option "sshcmd" is missing`},
		{map[string]string{"sshcmd": "u@h"}, "has no colon before the path"},
		{map[string]string{"sshcmd": "-oProxyCommand=x:/p"}, "begins with a dash"},
		{map[string]string{"sshcmd": "u@-h:/p"}, "begins with a dash"},
		{map[string]string{"sshcmd": "u@h;x:/p"}, "no place there"},
		{map[string]string{"sshcmd": "@h:/p"}, "no user before the @"},
		{map[string]string{"sshcmd": "u@:/p"}, "has no host"},
		{map[string]string{"sshcmd": "u@h:/p\nx"}, "control character"},
		{map[string]string{"sshcmd": sshcmd, "port": "0"}, "is not a number from 1 to 65535"},
		{map[string]string{"sshcmd": sshcmd, "port": "ssh"}, "is not a whole number"},
		{map[string]string{"sshcmd": sshcmd, "sshcmdd": "x"}, `did you mean "sshcmd"?`},
		{map[string]string{"sshcmd": sshcmd, "IdentityFlie": "x"}, `did you mean "IdentityFile"?`},
		{map[string]string{"sshcmd": sshcmd, "alow_other": ""}, `did you mean "allow_other"?`},
		{map[string]string{"sshcmd": sshcmd, "password_stdin": ""}, "unknown option"},
		{map[string]string{"sshcmd": sshcmd, "delay_connect": ""}, "unknown option"},
		{map[string]string{"sshcmd": sshcmd, "ProxyCommand": "touch /x"}, "can run commands on this host"},
		{map[string]string{"sshcmd": sshcmd, "proxycommand": "touch /x"}, "can run commands on this host"},
		{map[string]string{"sshcmd": sshcmd, "ssh_command": "touch /x"}, "can run commands on this host"},
		{map[string]string{"sshcmd": sshcmd, "LocalCommand": "touch /x"}, "can run commands on this host"},
		{map[string]string{"sshcmd": sshcmd, "directport": "1"}, "can run commands on this host"},
		{map[string]string{"sshcmd": sshcmd, "PKCS11Provider": "/x.so"}, "can run commands on this host"},
		{map[string]string{"sshcmd": sshcmd, "StrictHostKeyChecking": "ask"}, "is not one of yes, accept-new, no"},
		{map[string]string{"sshcmd": sshcmd, "Ciphers": ""}, "has no value"},
		{map[string]string{"sshcmd": sshcmd, "reconnect": "maybe"}, "is not true or false"},
		{map[string]string{"sshcmd": sshcmd, "uid": "1\n2"}, "control character"},
		{map[string]string{"sshcmd": sshcmd, "Ciphers": "a", "ciphers": "b"}, "given twice"},
		{map[string]string{"sshcmd": sshcmd, "password": "a\nb"}, "more lines than one"},
		{map[string]string{"sshcmd": sshcmd, "password": strings.Repeat("x", 1024)}, "more than 1023 bytes"},
		{map[string]string{"sshcmd": sshcmd, "password": "a", "password_env": "B"}, "leave one out"},
		{map[string]string{"sshcmd": sshcmd, "password": "a", "max_conns": "4"}, "only without a password"},
		{map[string]string{"sshcmd": sshcmd, "password_file": "../x"}, "leads out of the pool's secrets"},
		{map[string]string{"sshcmd": sshcmd, "identity_file": "/x", "IdentityFile": "/y"}, "leave one out"},
		{map[string]string{"sshcmd": sshcmd, "host_key": "ssh-ed25519"}, "not a public key"},
		{map[string]string{"sshcmd": sshcmd, "host_key": "ssh-ed25519 AAAA"}, "not a public key"},
	} {
		remotetest.WantErr(t, d.Create(t.Context(), "v", tt.opts), errdefs.ErrInvalid, tt.want)
	}
	if err := d.Create(t.Context(), "v", map[string]string{"sshcmd": sshcmd, "ProxyJump": "bastion"}); err != nil {
		t.Errorf("what the pool allows: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", ".a"} {
		remotetest.WantErr(t, d.Create(t.Context(), name, map[string]string{"sshcmd": sshcmd}), errdefs.ErrInvalid, "not the name of a volume")
	}
}

func TestWrongKeysOfAPool(t *testing.T) {
	for _, tt := range []struct {
		table map[string]any
		want  string
	}{
		{map[string]any{"base": "u@h"}, `key "base": "u@h" has no colon`},
		{map[string]any{"base": "u@h:/"}, "not a directory of its own"},
		{map[string]any{"base": "u@h:/p", "port": int64(70000)}, `key "port"`},
		{map[string]any{"options": []any{"nonsense=1"}}, `key "options": unknown option "nonsense"`},
		{map[string]any{"options": []any{"uid=1", "uid=2"}}, "given twice"},
		{map[string]any{"allow": []any{"uid"}}, `"uid" needs no leave`},
		{map[string]any{"known_hosts": "x"}, "not an absolute path"},
		{map[string]any{"password_file": "a", "password_env": "b"}, "leave one out"},
	} {
		_, err := openPool(t, t.TempDir(), nil, tt.table)
		remotetest.WantErr(t, err, errdefs.ErrInvalid, tt.want)
	}
}

// TestBaseIsThePools: whoever makes a volume below the base cannot have the pool's key or
// password sent to another server, nor weaken the trust in it.
func TestBaseIsThePools(t *testing.T) {
	d := offline(t, t.TempDir(), map[string]any{"base": "u@h:/p", "password_env": "X"})
	for _, key := range []string{"port", "known_hosts", "host_key", "StrictHostKeyChecking", "UserKnownHostsFile"} {
		val := map[string]string{"port": "23", "StrictHostKeyChecking": "no"}[key]
		if val == "" {
			val = "/x"
		}
		remotetest.WantErr(t, d.Create(t.Context(), "v", map[string]string{key: val}), errdefs.ErrInvalid, "pool's base")
	}
	t.Setenv("X", "pool's own")
	if err := d.Create(t.Context(), "theirs", map[string]string{"sshcmd": "u@evil:/p"}); err != nil {
		t.Fatal(err)
	}
	f, err := d.facts("theirs")
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := d.command(f)
	if err != nil || len(cmd.Stdin) > 0 {
		t.Errorf("another server is given %q, %v", cmd.Stdin, err)
	}
}

func TestParseSource(t *testing.T) {
	for text, want := range map[string]source{
		"u@h:/p":              {user: "u", host: "h", path: "/p"},
		"h:":                  {host: "h"},
		"u@1.2.3.4:rel/a b:c": {user: "u", host: "1.2.3.4", path: "rel/a b:c"},
		"u@[2001:db8::1]:/p":  {user: "u", host: "2001:db8::1", path: "/p"},
		"a@b@h:/p@q":          {},
	} {
		got, err := parseSource(text)
		if text == "a@b@h:/p@q" { // a user may have an @ in it, as that of a domain
			want = source{user: "a@b", host: "h", path: "/p@q"}
		}
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v, want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"u@h:/p", "u@[::1]:", "-o:x", "a,b=c", "ssh-ed25519 AAAA", "\x00", "no"} {
		for _, k := range []string{"sshcmd", "host_key", "uid", "ProxyCommand", "StrictHostKeyChecking"} {
			f.Add(k, s)
		}
	}
	d := &driver{secrets: "/secrets"}
	f.Fuzz(func(t *testing.T, key, val string) {
		opts := map[string]string{"sshcmd": "u@h:/p", "password": "s3cr3t-v4lue"}
		opts[key] = val
		r, err := d.decode("v", opts)
		switch {
		case err == nil && (strings.HasPrefix(r.source.host, "-") || strings.HasPrefix(r.source.String(), "-")):
			t.Errorf("%q=%q is an option to ssh", key, val)
		case err == nil && key != "password" && r.given["password"] != "":
			t.Error("the password is among what is shown")
		case err != nil && (!errors.Is(err, errdefs.ErrInvalid) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%q=%q: error %q", key, val, err)
		}
		for name := range r.mount {
			if known[name] == unsafe {
				t.Errorf("%q=%q was taken", key, val)
			}
		}
	})
}

// hidden begins the names of what is half made or half removed (package definition).
const hidden = ".remora-"

// TestCrashes plays what a kill leaves between any two steps of Create and Remove.
func TestCrashes(t *testing.T) {
	dir := t.TempDir()
	d := offline(t, dir, nil)
	opts := map[string]string{"sshcmd": "u@h:/p", "password": "hunter22"}
	if err := d.Create(t.Context(), "whole", opts); err != nil {
		t.Fatal(err)
	}
	volumes := dir + "/state/sshfs/test/volumes/"
	for _, path := range []string{hidden + "new-1/password", hidden + "gone-1/password", hidden + "gone-1/volume.json"} {
		if err := os.MkdirAll(filepath.Dir(volumes+path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(volumes+path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/run/sshfs/test/base-1", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(volumes+"torn", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(volumes+"torn/volume.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := d.store.Working()
	if err != nil {
		t.Fatal(err)
	}
	offline(t, dir, nil) // a new configuration, while the old one is at work
	if left, _ := filepath.Glob(volumes + hidden + "*"); len(left) != 2 {
		t.Errorf("what is being made was swept: %v", left)
	}
	done()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = offline(t, dir, nil)
	got := map[string]volume.Info{}
	for info, err := range d.Volumes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[info.Name] = info
	}
	if len(got) != 2 || got["whole"].Options["sshcmd"] != "u@h:/p" || !strings.Contains(fmt.Sprint(got["torn"].Status["error"]), "corrupt") {
		t.Errorf("volumes are %+v", got)
	}
	if left, _ := filepath.Glob(volumes + hidden + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := filepath.Glob(dir + "/run/sshfs/test/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := d.Create(t.Context(), "torn", opts); err == nil || errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("create over facts that cannot be read: %v", err)
	}
	if err := d.Remove(t.Context(), "torn"); err != nil {
		t.Errorf("remove of what cannot be read: %v", err)
	}
}

// TestMountTellsTheTruth: each way in which a server can refuse is one line with a class,
// within seconds, and leaves nothing behind.
func TestMountTellsTheTruth(t *testing.T) {
	s := startServer(t)
	d := s.pool(t, t.TempDir(), nil)
	other := strings.Join(strings.Fields(s.read(s.file("other.pub")))[:2], " ")
	if err := os.WriteFile(s.file("open"), []byte(s.read(s.key)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.file("open"), 0o644); err != nil { //nolint:gosec // which is the point
		t.Fatal(err)
	}
	s.write("data/file", "x")
	for name, tt := range map[string]struct {
		opts  map[string]string
		class error
		want  string
		hint  string
	}{
		"password": {s.options("d", "identity_file", "-", "password", "wrong horse"), errdefs.ErrDenied, "does not take the password", "try it by hand"},
		"key":      {s.options("d", "identity_file", s.file("other")), errdefs.ErrDenied, "does not take the key", "ssh -p"},
		"keymode":  {s.options("d", "identity_file", s.file("open")), errdefs.ErrInvalid, "can be read by others", "chmod 600"},
		"unknown": {
			s.options("d", "known_hosts", s.file("none")), errdefs.ErrDenied, "its host key is not known",
			fmt.Sprintf("ssh-keyscan -p %d 127.0.0.1 >> %s", s.port, s.file("none")),
		},
		"changed":   {s.options("d", "host_key", other), errdefs.ErrDenied, "its host key is not the one that is trusted", "new host_key"},
		"directory": {s.options("d", "sshcmd", "root@127.0.0.1:"+s.data("absent")), errdefs.ErrInvalid, "no such directory: " + s.data("absent"), ""},
		"file":      {s.options("d", "sshcmd", "root@127.0.0.1:"+s.data("file")), errdefs.ErrInvalid, "not a directory: ", ""},
		"refused":   {s.options("d", "port", strconv.Itoa(remotetest.FreePort(t))), errdefs.ErrUnavailable, "connection refused", "start the SSH server"},
		"dns":       {s.options("d", "sshcmd", "root@nosuch.invalid:/x"), errdefs.ErrUnavailable, "not known to DNS", "getent hosts nosuch.invalid"},
		"value":     {s.options("d", "Ciphers", "rot13"), errdefs.ErrInvalid, "ipher", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := d.Create(t.Context(), name, tt.opts); err != nil {
				t.Fatal(err)
			}
			target := t.TempDir()
			err := remotetest.Within(t, 20*time.Second, "mount", func() error { _, err := d.Mount(t.Context(), name, target); return err })
			remotetest.WantErr(t, err, tt.class, tt.want)
			if !strings.Contains(strings.Join(errdefs.Hints(err), "\n"), tt.hint) {
				t.Errorf("hints are %q, want %q", errdefs.Hints(err), tt.hint)
			}
			if syscall.Unmount(target, 0) == nil {
				t.Error("something is mounted")
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		s.signal(syscall.SIGSTOP)
		defer s.signal(syscall.SIGCONT)
		if err := d.Create(t.Context(), "silent", s.options("d")); err != nil {
			t.Fatal(err)
		}
		err := remotetest.Within(t, 20*time.Second, "mount", func() error { _, err := remotetest.MountAt(t, d, "silent"); return err })
		remotetest.WantErr(t, err, errdefs.ErrUnavailable, "timed out")
	})
}

// TestTrust: the ways in which a host key can be known, and not to look at it is a thing
// to say.
func TestTrust(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	d := s.pool(t, t.TempDir(), map[string]any{"known_hosts": nil})
	try := func(name string, opts map[string]string) error {
		t.Helper()
		if err := d.Create(t.Context(), name, opts); err != nil {
			t.Fatal(err)
		}
		at, err := remotetest.MountAt(t, d, name)
		if err == nil {
			err = d.Unmount(t.Context(), name, at)
		}
		return err
	}
	remotetest.WantErr(t, try("silence", s.options("d")), errdefs.ErrDenied, "not known")
	for name, opts := range map[string]map[string]string{
		"inline": s.options("d", "host_key", s.hostKey),
		"line":   s.options("d", "host_key", "127.0.0.1 "+s.hostKey+" comment"),
		"file":   s.options("d", "known_hosts", s.knownHosts),
		"option": s.options("d", "UserKnownHostsFile", s.knownHosts),
		"no":     s.options("d", "StrictHostKeyChecking", "no"),
	} {
		if err := try(name, opts); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	remotetest.WantErr(t, try("silence", nil), errdefs.ErrDenied, "not known")
	if err := try("new", s.options("d", "StrictHostKeyChecking", "accept-new")); err != nil {
		t.Errorf("accept-new: %v", err)
	}
	if err := try("silence", nil); err != nil { // as the pool has learnt it
		t.Errorf("after accept-new: %v", err)
	}
}

func TestOptionsReachSshfs(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	d := s.pool(t, t.TempDir(), map[string]any{"options": append([]any{"umask=077", "gid=17"}, quick...)})
	opts := s.options("with, comma", "uid", "1234", "gid", "4321", "ro", "", "allow_other", "false")
	if err := d.Create(t.Context(), "v", opts); err != nil {
		t.Fatal(err)
	}
	s.write("data/with, comma/f", "x")
	at, err := remotetest.MountAt(t, d, "v")
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(at+"/f", &st); err != nil || st.Uid != 1234 || st.Gid != 4321 || st.Mode&0o777 != 0o700 {
		t.Errorf("file is %d:%d with mode %o, %v", st.Uid, st.Gid, st.Mode&0o777, err)
	}
	if err := os.WriteFile(at+"/g", nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to what is read-only: %v", err)
	}
	if m, ok, err := remote.At(at); err != nil || !ok || strings.Contains(m.Options, "allow_other") {
		t.Errorf("mounted as %+v, %v", m, err)
	}
	other := t.TempDir()
	if _, err := d.Mount(t.Context(), "v", other); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), "w", s.options("w")); err != nil {
		t.Fatal(err)
	}
	_, err = d.Mount(t.Context(), "w", other)
	remotetest.WantErr(t, err, errdefs.ErrInUse, "something else is mounted")
	if err := d.Unmount(t.Context(), "v", other); err != nil {
		t.Error(err)
	}
}

func TestDescribedOptionsAreDecoded(t *testing.T) {
	for _, k := range catalog.Describe[options]() {
		if _, clash := canonical(k.Name); clash {
			t.Errorf("option %q is one of sshfs too", k.Name)
		}
	}
}
