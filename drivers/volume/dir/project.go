package dir

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Projects of volumes are of the range from firstProject to twice as far. People number
// theirs from 1.
const firstProject = 1 << 30

// own tells whether a project may be one of a volume.
func own(project uint32) bool { return project >= firstProject && project < 2*firstProject }

// newProject chooses a project that nobody has: nothing on the file system belongs to it, it has
// no limit, and the files in which people name theirs (projects(5), projid(5)) do not know it.
// Once it is set, the directory it is set on keeps others from choosing it.
func newProject(fd int) (uint32, error) {
	taken := namedProjects()
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		id := firstProject + binary.NativeEndian.Uint32(b[:])%firstProject
		q, err := quotaOf(fd, id)
		if err != nil {
			return 0, err
		}
		if !taken[id] && q.blocks == 0 && q.inodes == 0 && q.hard == 0 && q.soft == 0 && q.inodeHard == 0 && q.inodeSoft == 0 {
			return id, nil
		}
	}
}

// projectFiles are where people write down their projects, as ID:PATH and as NAME:ID.
var projectFiles = [2]string{"/etc/projects", "/etc/projid"}

func namedProjects() map[uint32]bool {
	taken := map[uint32]bool{}
	for i, path := range projectFiles {
		f, err := os.Open(path)
		if err != nil {
			continue // there mostly is none
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.SplitN(strings.TrimSpace(lines.Text()), ":", 2)
			if id, err := strconv.ParseUint(strings.TrimSpace(fields[min(i, len(fields)-1)]), 10, 32); err == nil {
				taken[uint32(id)] = true
			}
		}
		_ = f.Close()
	}
	return taken
}

// projectOf returns the project of a data directory, 0 where it is none of a volume's: then what
// is counted there is not the volume alone.
func projectOf(data *os.File) (uint32, error) {
	a, err := attrOf(int(data.Fd()))
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	if err != nil || a.flags&inherit == 0 || !own(a.project) {
		return 0, err
	}
	return a.project, nil
}

// assign makes a directory, and what will be made in it, part of a project.
func assign(fd int, project uint32) error {
	a, err := attrOf(fd)
	if err != nil {
		return err
	}
	a.flags |= inherit
	a.project = project
	return a.set(fd)
}

// errForeign says that what lies in the directory is counted by somebody else.
var errForeign = errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it belongs to a project already"),
	"the project was given by somebody else (lsattr -pd); take it off: chattr -R -p 0, for a limit of the volume's own")

// enclose makes what lies in a data directory, which may be in use, part of one project. What is
// made meanwhile is part of it, as a directory comes before what is in it.
func enclose(ctx context.Context, data *os.File) (project uint32, err error) {
	fd := int(data.Fd())
	a, err := attrOf(fd)
	if err != nil {
		return 0, err
	}
	switch {
	case own(a.project):
		project = a.project // also after a crash half way
	case a.project != 0:
		return 0, errForeign
	default:
		if project, err = newProject(fd); err != nil {
			return 0, err
		}
	}
	return project, encloseTree(ctx, data, project, 0)
}

func encloseTree(ctx context.Context, dir *os.File, project uint32, depth int) error {
	if depth > maxCopyDepth {
		return errdefs.Errorf(errdefs.ErrInvalid, "more than %d directories deep", maxCopyDepth)
	}
	if err := assign(int(dir.Fd()), project); err != nil {
		return err
	}
	for {
		entries, err := dir.ReadDir(512)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := encloseEntry(ctx, dir, e, project, depth); err != nil {
				return fmt.Errorf("%s: %w", e.Name(), err)
			}
		}
	}
}

// encloseEntry passes over what is neither file nor directory, which has no such attribute and
// takes no room, and over what is gone.
func encloseEntry(ctx context.Context, dir *os.File, e os.DirEntry, project uint32, depth int) error {
	if e.IsDir() {
		sub, err := openBelow(int(dir.Fd()), e.Name())
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		defer sub.Close()
		return encloseTree(ctx, sub, project, depth+1)
	}
	if !e.Type().IsRegular() {
		return nil
	}
	fd, err := unix.Openat(int(dir.Fd()), e.Name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	a, err := attrOf(fd)
	if err != nil || a.project == project {
		return err
	}
	a.project = project
	return a.set(fd)
}
