package adopt

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func sprint(v any) string { return fmt.Sprint(v) }

func TestRexray(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	mkdir(t, dir+"/dbdata", dir+"/wpdata", dir+"/bare")
	write(t, dir+"/file", "")
	for _, name := range []string{"dbdata", "bare"} {
		at := dir + "/" + name
		if err := syscall.Mount("none", at, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	mkdir(t, dir+"/dbdata/data", dir+"/dbdata/lost+found")
	all, err := Rexray(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(dir, all), []string{
		"bare /t/bare",
		"dbdata /t/dbdata/data",
		"wpdata /t/wpdata unavailable: no disk is mounted at /t/wpdata",
	})
	if _, err := Rexray(dir + "/none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of no directory: %v", err)
	}
}

const rexrayYML = `libstorage:
  # service: scaleio
  service: ebs
  server:
    services:
      ebs:
        driver: ebs
      files:
        driver: "efs"   # by NFS
rexray:
  modules:
    default-docker:
      libstorage:
        service: s3fs
s3fs:
  accessKey: AKIASECRET
linux:
  volume:
    rootPath: /data
`

func TestRexrayPools(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/config.yml", rexrayYML)
	pools, err := RexrayPools(dir + "/config.yml")
	if err != nil {
		t.Fatal(err)
	}
	if len(pools) != 3 || pools["ebs"] != "" || !strings.Contains(pools["efs"], `type = "nfs4"`) || !strings.Contains(pools["s3fs"], `type = "s3fs"`) {
		t.Errorf("pools %v", pools)
	}
	if strings.Contains(sprint(pools), "SECRET") {
		t.Errorf("a secret is shown: %v", pools)
	}
	if pools, err := RexrayPools(dir + "/none"); err != nil || pools != nil {
		t.Errorf("of no file: %v, %v", pools, err)
	}
	if _, err := RexrayPools(dir); err == nil {
		t.Error("of a directory: no error")
	}
}

func TestConvoyBackupWrong(t *testing.T) {
	for _, bad := range []string{
		"", "{}", `{"CreatedTime":"Sat Nov 28 14:36:24 +0000 2026"}`,
		`{"CreatedTime":"yesterday","SingleFile":{"FilePath":"a"}}`,
		`{"CreatedTime":"Sat Nov 28 14:36:24 +0000 2026","SingleFile":{"FilePath":"../../etc/shadow"}}`,
		`{"CreatedTime":"Sat Nov 28 14:36:24 +0000 2026","SingleFile":{"FilePath":"/etc/shadow"}}`,
	} {
		if b, err := parseConvoyBackup([]byte(bad)); err == nil {
			t.Errorf("of %s: %v", bad, b)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/real/backups")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir + "/convoy-objectstore/volumes/vo/l1/vol1/backups"); err != nil {
		t.Fatal(err)
	}
	all, err := ConvoyBackups(dir)
	if err != nil || len(all) != 1 || !errors.Is(all[0].Err, errdefs.ErrNotFound) {
		t.Errorf("without a backup: %v, %v", all, err)
	}
}

func FuzzConvoyBackup(f *testing.F) {
	f.Add(read(f, "testdata/real/backups/convoy-objectstore/volumes/vo/l1/vol1/backups/backup_backup-93f34b6a8ef341b9.cfg"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := parseConvoyBackup(data); err == nil && (b.file == "" || strings.HasPrefix(b.file, "/")) {
			t.Errorf("%q", b.file)
		}
	})
}
