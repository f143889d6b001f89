package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// storagePlan says how much of the storage suite is measured.
type storagePlan struct {
	fioRounds int // of which each has so many turns on each side
	fioTurns  int
	fioTime   time.Duration
	fioSize   int64

	snapshotSize   int64 // of the volume
	snapshotRounds int

	volumes    int // that are listed
	listRounds int

	backupSize   int64
	backupRounds int
}

var (
	wholeStorage = storagePlan{
		fioRounds: 4, fioTurns: 6, fioTime: 250 * time.Millisecond, fioSize: 512 << 20,
		snapshotSize: 10 << 30, snapshotRounds: 6,
		volumes: 10_000, listRounds: 9,
		backupSize: 2 << 30, backupRounds: 2,
	}
	quickStorage = storagePlan{
		fioRounds: 1, fioTurns: 4, fioTime: 50 * time.Millisecond, fioSize: 64 << 20,
		snapshotSize: 1 << 30, snapshotRounds: 2,
		volumes: 1000, listRounds: 3,
		backupSize: 128 << 20, backupRounds: 1,
	}
)

// storageSuite measures drivers and backups.
type storageSuite struct {
	storagePlan
	stage
	dir     string
	remora  string
	tarball string
	results *StorageResults
}

// storageTools are the programs that it needs, and where Debian has them.
var storageTools = map[string]string{
	"fio": "fio", "restic": "restic", "tar": "tar", "zstd": "zstd", "sshfs": "sshfs", "/usr/sbin/sshd": "openssh-server", "ssh-keygen": "openssh-client",
	"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "btrfs": "btrfs-progs", "losetup": "mount",
}

// measureStorage runs the plan, or one part of it, and keeps the other parts of old.
func measureStorage(p storagePlan, only, daemon, scratch string, old *StorageResults) (r *StorageResults, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the storage suite mounts file systems, and needs root")
	}
	if err := have(storageTools); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(scratch, "rb")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &storageSuite{storagePlan: p, dir: dir, remora: daemon, results: new(StorageResults), stage: newStage()}
	if only != "" && old != nil {
		*s.results = *old
	}
	bin, err := build(dir, daemon)
	if err != nil {
		return nil, err
	}
	s.remora, s.tarball = bin.remora, bin.tarball
	if s.results.Machine, err = lookAtMachine(dir, filepath.Join(dir, "run")); err != nil {
		return nil, err
	}
	s.results.Tools = map[string]string{
		"fio": said("fio", "--version"), "restic": said("restic", "version"), "zstd": said("zstd", "--version"),
		"tar": said("tar", "--version"), "sshfs": said("sshfs", "--version"),
	}
	return s.results, s.play(only, []part{{"fio", s.dataPath}, {"snapshots", s.snapshots}, {"lists", s.lists}, {"backups", s.backups}}...)
}

// disk makes a file system in a file below the scratch directory, on a loop device with direct
// I/O, which stands for a disk, and returns where it is mounted.
func (s *storageSuite) disk(name, kind string) (string, error) {
	image, at := filepath.Join(s.dir, name+".img"), filepath.Join(s.dir, name)
	if err := errors.Join(os.Mkdir(at, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 60<<30)); err != nil {
		return "", err
	}
	mkfs := map[string][]string{
		"ext4": {"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
		"xfs":  {"mkfs.xfs", "-q", image}, "btrfs": {"mkfs.btrfs", "-q", image},
	}[kind]
	if err := command(mkfs[0], mkfs[1:]...); err != nil {
		return "", err
	}
	device := said("losetup", "--find", "--show", "--direct-io=on", image)
	if device == "" {
		return "", fmt.Errorf("losetup %s failed", image)
	}
	s.undo = append(s.undo, func() error {
		return errors.Join(command("losetup", "--detach", device), os.Remove(image), os.Remove(at))
	})
	if err := command("mount", device, at); err != nil {
		return "", err
	}
	s.undo = append(s.undo, func() error { return command("umount", at) })
	return at, nil
}

// command runs a program, whose output is in the error.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out)
	}
	return nil
}

// flushed brings what has been written to a file system to its disk (syncfs(2)).
func flushed(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
