package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) pluginCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME DIRECTORY", Short: "Make a managed plugin of a directory with config.json and rootfs",
		Long: "Make a managed plugin of a directory, in which config.json says what it is and rootfs/ holds its files.",
		Args: usage(cobra.ExactArgs(2)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkBundle(args[1]); err != nil {
			return err
		}
		return a.plugins(func(c control.Plugins) error {
			read, write := io.Pipe()
			packed := make(chan error, 1)
			go func() {
				err := packBundle(args[1], write)
				write.CloseWithError(err)
				packed <- err
			}()
			p, err := c.Create(cmd.Context(), args[0], read)
			_ = read.Close() // it only ends the packing
			if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
				// To the client it was the daemon that could not be asked.
				return state.Classify(fmt.Errorf("directory %q: %w", args[1], perr))
			}
			if err != nil {
				return err
			}
			return a.printf("%s\n", p.Name)
		})
	}
	return cmd
}

// checkBundle refuses what is no plugin before it is sent anywhere.
func checkBundle(dir string) error {
	bad := func(format string, args ...any) error {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "directory %q: "+format, append([]any{dir}, args...)...), "it needs a file config.json and a directory rootfs")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return bad("%w", reasonOf(err))
	}
	if _, err := settings.Parse(raw); err != nil {
		return bad("config.json: %w", err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "rootfs")); err != nil || !fi.IsDir() {
		return bad("has no directory rootfs")
	}
	return nil
}

// reasonOf leaves the path out of an error: it has been said.
func reasonOf(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", filepath.Base(e.Path), e.Err)
	}
	return err
}

// packBundle writes config.json and rootfs as a tar, with all that a file system of a container has.
func packBundle(dir string, to io.Writer) error {
	w := tar.NewWriter(to)
	p := packer{w: w, links: map[[2]uint64]string{}}
	for _, top := range []string{"config.json", "rootfs"} {
		from, err := filepath.EvalSymlinks(filepath.Join(dir, top)) // it may lie where it is built
		if err != nil {
			return err
		}
		err = filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			return p.add(path, filepath.Join(top, name))
		})
		if err != nil {
			return err
		}
	}
	return w.Close()
}

type packer struct {
	w *tar.Writer
	// links has the names of files that have several, by device and inode.
	links map[[2]uint64]string
}

func (p *packer) add(path, name string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	target := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname, h.Format = name, "", "", tar.FormatPAX
	if fi.IsDir() {
		h.Name += "/"
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && fi.Mode().IsRegular() && st.Nlink > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := p.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		}
		p.links[key] = name
	}
	if v := capability(path); v != "" && h.Typeflag == tar.TypeReg {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": v}
	}
	if err := p.w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(p.w, f)
	return err
}

// capability returns the capabilities of a file, empty if it has none.
func capability(path string) string {
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(path, "security.capability", buf)
	if err != nil || n <= 0 {
		return ""
	}
	return string(buf[:n])
}
