package mount

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/catalog/catalogtest"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	_ volume.Driver    = (*driver)(nil)
	_ volume.Inspector = (*driver)(nil)
	_ volume.Pinger    = (*driver)(nil)
)

func TestREADME(t *testing.T) { catalogtest.README(t, Driver()) }

// TestPlans: what each type's program is told, for what Docker's users write.
func TestPlans(t *testing.T) {
	d := pool(t, t.TempDir(), map[string]any{"allow_devices": true})
	for name, tt := range map[string]struct {
		opts    string // with semicolons between them
		args    string
		files   map[string]string
		servers string
	}{
		"nfs": {
			opts:    "type=nfs;o=addr=nas,rw,nolock,vers=4.1,_netdev;device=:/srv",
			args:    "mount -t nfs -o nodev,nolock,nosuid,retrans=2,retry=0,rw,soft,timeo=100,vers=4.1 -- nas:/srv /t",
			servers: "nas:2049",
		},
		"nfs4 hard": {
			opts:    "type=nfs4;device=nas:/srv;hard=;port=2050;timeo=600",
			args:    "mount -t nfs4 -o hard,nodev,nosuid,port=2050,retrans=2,retry=0,timeo=600 -- nas:/srv /t",
			servers: "nas:2050",
		},
		"nfs over IPv6": {
			opts:    "type=nfs;o=addr=2001:db8::1,ro;device=:/srv",
			args:    "mount -t nfs -o nodev,nosuid,retrans=2,retry=0,ro,soft,timeo=100 -- [2001:db8::1]:/srv /t",
			servers: "[2001:db8::1]:2049",
		},
		"cifs": {
			opts:    "type=cifs;o=username=me,password=hunter2,domain=D,vers=3.0,uid=7;device=//nas/share",
			args:    "mount -t cifs -o credentials=/d/credentials,echo_interval=10,nodev,nosuid,soft,uid=7,vers=3.0 -- //nas/share /t",
			files:   map[string]string{"credentials": "username=me\npassword=hunter2\ndomain=D\n"},
			servers: "nas:445",
		},
		"cifs guest": {
			opts:    "type=cifs;o=guest,ip=10.0.0.1,port=4455;device=//nas/share",
			args:    "mount -t cifs -o echo_interval=10,guest,ip=10.0.0.1,nodev,nosuid,port=4455,soft -- //nas/share /t",
			servers: "10.0.0.1:4455",
		},
		"glusterfs": {
			opts:    "type=glusterfs;o=backup-volfile-servers=g2:g3;device=g1:/vol",
			args:    "mount -t glusterfs -o backup-volfile-servers=g2:g3,nodev,nosuid -- g1:/vol /t",
			servers: "g1:24007 g2:24007 g3:24007",
		},
		"ceph": {
			opts:    "type=ceph;o=name=me,secret=hunter2==;device=m1,m2:6790:/x",
			args:    "mount -t ceph -o mount_timeout=20,name=me,nodev,nosuid,recover_session=clean,secretfile=/d/secret -- m1,m2:6790:/x /t",
			files:   map[string]string{"secret": "hunter2==\n"},
			servers: "m1:3300 m1:6789 m2:6790",
		},
		"ceph-fuse": {
			opts:    "type=ceph-fuse;username=me;password=hunter2;o=ro;device=m1:/x",
			args:    "ceph-fuse -n client.me -m m1 -r /x -k /d/keyring --client_mount_timeout=20 -o ro /t",
			files:   map[string]string{"keyring": "[client.me]\n\tkey = hunter2\n"},
			servers: "m1:3300 m1:6789",
		},
		"davfs": {
			opts: `type=davfs;username=me;password=hunter"2;o=uid=7,retry=3;device=https://h/x`,
			args: "mount -t davfs -o conf=/d/davfs2.conf,nodev,nosuid,uid=7 -- https://h/x /t",
			files: map[string]string{
				"davfs2.conf": "ask_auth 0\nsecrets \"/d/secrets\"\nbuf_size 64\nconnect_timeout 10\ndelay_upload 0\nmax_retry 30\nread_timeout 30\nretry 3\nuse_locks 0\n",
				"secrets":     `"https://h/x" "me" "hunter\"2"` + "\n",
			},
			servers: "h:443",
		},
		"s3fs": {
			opts:    "type=s3fs;username=KEY;password=hunter2;o=url=http://s3:9000,use_path_request_style;device=b:/x",
			args:    "s3fs b:/x /t -o allow_other,connect_timeout=10,nodev,nosuid,passwd_file=/d/passwd,readwrite_timeout=20,retries=2,url=http://s3:9000,use_path_request_style",
			files:   map[string]string{"passwd": "KEY:hunter2\n"},
			servers: "s3:9000",
		},
		"rclone": {
			opts: "type=rclone;username=KEY;password=hunter2;o=s3-endpoint=http://s3:9000,s3-provider=Minio,ro;device=:s3:b/x",
			args: "rclone mount --daemon --daemon-wait 30s --devname :s3:b/x --config /d/rclone.conf --ask-password=false --cache-dir /c " +
				"--allow-other --contimeout=5s --dir-cache-time=10s --low-level-retries=2 --read-only --timeout=20s --vfs-cache-mode=writes --vfs-write-back=0s -- remora:b/x /t",
			files:   map[string]string{"rclone.conf": "[remora]\ntype = s3\naccess_key_id = KEY\nendpoint = http://s3:9000\nprovider = Minio\nsecret_access_key = hunter2\n"},
			servers: "s3:9000",
		},
		"tmpfs": {opts: "type=tmpfs;o=size=1m,mode=0750", args: "mount -t tmpfs -o mode=0750,nodev,nosuid,size=1m -- tmpfs /t"},
		"xfs":   {opts: "type=xfs;device=/dev/x", args: "mount -t xfs -o nodev,nosuid -- /dev/x /t"},
	} {
		opts := map[string]string{}
		for pair := range strings.SplitSeq(tt.opts, ";") {
			key, val, _ := strings.Cut(pair, "=")
			opts[key] = val
		}
		r, err := d.decode("v", opts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		typ, j, err := d.job(r.facts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		j.password, j.dir, j.cache, j.target = r.password, "/d", "/c", "/t"
		p, err := typ.build(j)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.args, p.cmd.Name+" "+strings.Join(p.cmd.Args, " ")); diff != "" {
			t.Errorf("%s: command (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tt.files, p.files); diff != "" && len(tt.files)+len(p.files) > 0 {
			t.Errorf("%s: files (-want +got):\n%s", name, diff)
		}
		if got := strings.Join(typ.servers(j), " "); got != tt.servers {
			t.Errorf("%s: servers are %q, want %q", name, got, tt.servers)
		}
		for _, cmd := range append(p.before, p.cmd) {
			if strings.Contains(strings.Join(cmd.Args, " "), "hunter") {
				t.Errorf("%s: the password is among %q", name, cmd.Args)
			}
		}
	}
}

func TestWrongOptions(t *testing.T) {
	d := pool(t, t.TempDir(), map[string]any{"allow": []any{"log-file"}})
	for _, tt := range []struct{ opts, want string }{
		{"", `option "type" is missing`},
		{"type=nsf", `did you mean "nfs"?`},
		{"type=nfs", `option "device" is missing: server:/path`},
		{"type=nfs;device=-x:/p", "is not server:/path"},
		{"type=nfs;device=nas:/p;o=sfot", `did you mean "soft"?`},
		{"type=nfs;device=nas:/p;o=suid", "the pool does not allow it"},
		{"type=nfs;device=nas:/p;o=password=x", "takes no password"},
		{"type=nfs;device=other:/p;o=addr=nas", "names the server"},
		{"type=nfs;device=nas:/p;o=bg", "unknown option"},
		{"type=nfs;device=nas:/p;clientaddr=\"x", "quotation mark"},
		{"type=cifs;device=//nas/s", `option "username" is missing`},
		{"type=cifs;device=//nas/s;o=username=u,password=a;password=b", "twice"},
		{"type=cifs;device=//nas/s;o=username=u,credentials=/etc/shadow", "the pool does not allow it"},
		{"type=cifs;device=//nas/s;o=username=u,credentials=../x", "leads out"},
		{"type=cifs;device=//nas/s;o=username=u,password=hun,ter2", "what follows the password"},
		{"type=cifs;device=//nas/s;user=u\ndomain=x;password=hunter2", "control character"},
		{"type=glusterfs;device=g:/v;xlator-option=x", "the pool does not allow it"},
		{"type=davfs;device=https://u:hunter2@h/x", "there is a user in the URL"},
		{"type=s3fs;device=b", `option "username" is missing`},
		{"type=rclone;device=:webdav,pass=hunter2:x", "is not remote:path"},
		{"type=rclone;device=:local:/", "can only come from a file"},
		{"type=rclone;device=r:x", `option "config" is missing`},
		{"type=rclone;device=r:x;config=/root/x", "the pool does not allow it"},
		{"type=rclone;device=:sftp:x;sftp-host=h", `"sftp-known-hosts-file" is missing`},
		{"type=rclone;device=:webdav:x;webdav-url=http://h;webdav-pass=hunter2", `did you mean "password"?`},
		{"type=ext4;device=/dev/sda", "the pool does not allow it"},
		{"type=tmpfs;o=size=", "has no value"},
	} {
		opts := map[string]string{}
		for pair := range strings.SplitSeq(tt.opts, ";") {
			if key, val, ok := strings.Cut(pair, "="); ok {
				opts[key] = val
			}
		}
		err := d.Create(t.Context(), "v", opts)
		remotetest.WantErr(t, err, errdefs.ErrInvalid, tt.want)
		if err != nil && strings.Contains(err.Error(), "ter2") {
			t.Errorf("a password is shown: %v", err)
		}
	}
	if err := d.Create(t.Context(), "v", map[string]string{"type": "glusterfs", "device": "g:/v", "log-file": "/x"}); err != nil {
		t.Errorf("what the pool allows: %v", err)
	}
}

// TestMountTellsTheTruth: each way in which a server can refuse is one line with a class.
func TestMountTellsTheTruth(t *testing.T) {
	s := startServer(t)
	d := pool(t, t.TempDir(), nil)
	for name, tt := range map[string]struct {
		opts  map[string]string
		class error
		want  string
	}{
		"password":  {s.rclone("d", "password", "wrong"), errdefs.ErrDenied, "the server denies it"},
		"directory": {s.rclone("d", "device", ":webdav:absent"), errdefs.ErrInvalid, "there is no such directory"},
		"down":      {s.rclone("d", "webdav-url", "http://127.0.0.1:1"), errdefs.ErrUnavailable, "connection refused"},
	} {
		create(t, d, name, tt.opts)
		err := remotetest.Within(t, 15*time.Second, name, func() error { _, err := remotetest.MountAt(t, d, name); return err })
		remotetest.WantErr(t, err, tt.class, tt.want)
	}
	if left, err := os.ReadDir(filepath.Join(d.run, mountsName)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestPasswordIsShownNowhere searches all that others can see while a volume is mounted.
func TestPasswordIsShownNowhere(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	var log bytes.Buffer
	d, err := openPool(t, dir, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := "hunter2hunter2"
	s.kill()
	create(t, d, "v", s.rclone("v", "password", "-", "o", "password="+secret+",ro"))
	_, err = remotetest.MountAt(t, d, "v")
	info, _ := d.Inspect(t.Context(), "v")
	js, _ := json.Marshal(info)
	if text := string(js) + log.String() + err.Error(); strings.Contains(text, secret) || info.Options["o"] != "ro" {
		t.Errorf("the password is shown, or options are %v: %s", info.Options, text)
	}
	found := 0
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, _ error) error {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(secret)) {
			found++
			if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 || e.Name() != passwordName {
				t.Errorf("%s: %v", path, err)
			}
		}
		return nil
	})
	if found != 1 {
		t.Errorf("the password is in %d files", found)
	}
}

// TestLocalTypes mounts what needs no server.
func TestLocalTypes(t *testing.T) {
	testenv.Require(t, testenv.Root)
	d := pool(t, t.TempDir(), map[string]any{"allow_devices": true})
	create(t, d, "mem", map[string]string{"type": "tmpfs", "o": "size=1m,mode=0750"})
	image := filepath.Join(t.TempDir(), "image")
	sh := func(name string, args ...string) string {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sh("truncate", "-s", "16m", image)
	sh("mkfs.ext4", "-q", image)
	loop := sh("losetup", "--find", "--show", image)
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	create(t, d, "disk", map[string]string{"type": "ext4", "device": loop, "o": "noatime,errors=remount-ro"})
	for name, typ := range map[string]string{"mem": "tmpfs", "disk": "ext4"} {
		at, err := remotetest.MountAt(t, d, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m, ok, err := remote.At(at); err != nil || !ok || m.FSType != typ {
			t.Errorf("%s is mounted as %+v, %v", name, m, err)
		}
		if err := os.WriteFile(at+"/f", nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := d.Unmount(t.Context(), name, at); err != nil {
			t.Error(err)
		}
	}
}

// TestSweep: what a crash left goes when the pool is opened.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	d := pool(t, dir, nil)
	if _, err := d.note(record{Volume: "v", ID: "x", Mountpoint: "/nowhere", Types: []string{"tmpfs"}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{d.run + "/base-1", d.dir + "/cache/ID/vfs"} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	pool(t, dir, nil)
	for _, pattern := range []string{d.run + "/base-*", d.run + "/mounts/*", d.dir + "/cache/*"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}
