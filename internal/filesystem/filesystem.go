// Package filesystem makes the file systems that lie on devices, checks them, and grows them: what
// drivers with an image or a disk for each volume have in common.
package filesystem

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Kind is what there is to know about one file system.
type Kind struct {
	Name string
	// Package has its programs.
	Package string
	// Min is the size below which it cannot be made.
	Min int64
	// Always are mount options that each mount needs.
	Always []string

	label   int            // length of one
	options *regexp.Regexp // those that a user may give besides the general ones
	mkfs    []string       // none of it discards, which would give back what was reserved
	uuid    string         // the flag of the UUID
	over    string         // that to write over what is there
}

// Kinds has the file systems by name. xfs refuses two file systems with the same ID, as a
// volume and its clone have, unless it is told not to look (xfs(5), nouuid).
var Kinds = map[string]Kind{
	"ext4": {
		Name: "ext4", Package: "e2fsprogs", Min: 16 << 20, label: 16,
		options: regexp.MustCompile(`^(commit=\d{1,5}|data=(ordered|writeback|journal)|dioread_nolock|dioread_lock|delalloc|nodelalloc|auto_da_alloc|acl|user_xattr)$`),
		mkfs:    []string{"mkfs.ext4", "-q", "-m", "0", "-e", "remount-ro", "-E", "nodiscard,lazy_itable_init=1," + lazyJournal},
		uuid:    "-U", over: "-F",
	},
	"xfs": {
		Name: "xfs", Package: "xfsprogs", Min: 300 << 20, label: 12, Always: []string{"nouuid"},
		options: regexp.MustCompile(`^(allocsize=\d{1,7}[kmg]?|inode64|inode32|largeio|nolargeio|logbsize=\d{1,6}k?|swalloc)$`),
		mkfs:    []string{"mkfs.xfs", "-q", "-K"},
		uuid:    "-muuid=", over: "-f",
	},
	"btrfs": {
		Name: "btrfs", Package: "btrfs-progs", Min: 256 << 20, label: 255,
		options: regexp.MustCompile(`^(compress(-force)?(=(zlib|lzo|zstd)(:\d{1,2})?)?|autodefrag|commit=\d{1,5}|ssd|nossd|nodatacow|nodatasum|flushoncommit|skip_balance|max_inline=\d{1,6})$`),
		mkfs:    []string{"mkfs.btrfs", "-q", "-K"},
		uuid:    "-U", over: "-f",
	},
}

// lazyJournal leaves what is in the journal as it is.
const lazyJournal = "lazy_journal_init=1"

// general are the mount options that each kind takes.
var general = []string{
	"noatime", "relatime", "strictatime", "nodiratime", "lazytime", "nosuid", "nodev", "noexec", "sync", "dirsync", "discard",
}

// Takes tells whether a user may give the option.
func (k Kind) Takes(option string) bool {
	return slices.Contains(general, option) || k.options.MatchString(option)
}

// New is a file system to be made.
type New struct {
	Device string
	// Label is made into one that the kind takes.
	Label string
	// UUID is one of our own, empty for one that mkfs makes up.
	UUID string
	// BlockSize is in bytes, empty for what mkfs finds right. Only ext4 heeds it.
	BlockSize string
	// Journal has all of the journal zeroed, and so given blocks.
	Journal bool
	// Over has it written over what is there; without it mkfs refuses.
	Over bool
	// Advice is for a person whose storage fails.
	Advice string
}

var notInLabel = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// Make makes the file system.
func (k Kind) Make(ctx context.Context, n New) error {
	label := strings.TrimLeft(notInLabel.ReplaceAllString(n.Label, "_"), "-")
	args := slices.Clone(k.mkfs[1:])
	if n.Journal {
		for i := range args {
			args[i] = strings.Replace(args[i], lazyJournal, "lazy_journal_init=0", 1)
		}
	}
	switch {
	case n.UUID != "" && strings.HasSuffix(k.uuid, "="):
		args = append(args, k.uuid+n.UUID)
	case n.UUID != "":
		args = append(args, k.uuid, n.UUID)
	}
	if n.BlockSize != "" && k.Name == "ext4" {
		args = append(args, "-b", n.BlockSize)
	}
	if n.Over {
		args = append(args, k.over)
	}
	args = append(args, "-L", label[:min(len(label), k.label)], n.Device)
	_, err := run.Output(ctx, nil, k.mkfs[0], args...)
	if err != nil && errdefs.Class(err) == nil && ctx.Err() == nil { // options were checked: it is the storage
		err = errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), n.Advice)
	}
	return k.Hint(err)
}

// Hint says what to install where a program is missing.
func (k Kind) Hint(err error) error {
	if errors.Is(err, errdefs.ErrUnavailable) && len(errdefs.Hints(err)) == 0 {
		return errdefs.Hint(err, "install "+k.Package)
	}
	return err
}
