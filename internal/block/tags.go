package block

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What [Tags] may be at the most. A key becomes longer by the prefix, where EC2 takes 128 bytes.
const (
	maxTags  = 30
	maxKey   = 100
	maxValue = 255
)

// fit refuses tags that a cloud would not take.
func (t Tags) fit() error {
	if len(t) > maxTags {
		return errdefs.Errorf(errdefs.ErrInvalid, "%d tags: a disk or snapshot can have %d", len(t), maxTags)
	}
	for k, v := range t {
		if len(k) > maxKey || len(v) > maxValue {
			return errdefs.Errorf(errdefs.ErrInvalid, "tag %.30q: too long for a cloud", k)
		}
	}
	return nil
}

// Short makes a text that is only there to be read one that fits into a tag.
func Short(text string) string {
	if len(text) <= maxValue {
		return text
	}
	text = text[:maxValue-len("…")]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + "…"
}

// The tags of the core's own.
const (
	tagFS        = "fs"        // the file system, once it is known
	tagFormatted = "formatted" // our record of formatting, see below
	tagRoot      = "root"      // the directory that a container gets: data, /, or auto until it was looked at
	tagTrashed   = "trashed"   // the ID in the trash
	tagTemp      = "temp"      // a disk that is no volume: what it is for, and the host
	tagMoving    = "moving"    // a disk whose volume is being moved: the UUID of the one to come, since when, and where to
	tagReplaces  = "replaces"  // the UUID of the disk whose place this one took
	tagFrom      = "from"      // what it was made of
	tagOrigin    = "origin"    // the UUID to which snapshots belong, where it is not the disk's own
	tagSnapshot  = "snapshot"  // of a snapshot: its name
	tagOf        = "of"        // of a snapshot: the UUID of its volume
	tagMade      = "made"      // of a snapshot: when, by our own clock
	option       = "o."        // an option that the volume was made with
	label        = "l."        // a label of a snapshot
)

// What stands in [tagFormatted]. A disk that is made here has none: that is the record that it
// was never formatted. Before mkfs it is said to have begun, of which no user has had a mount
// yet; from the time on that follows, nothing formats the disk ever again.
const begun = "begun"

func formatted(d Disk) bool {
	f := d.Tags[tagFormatted]
	return f != "" && f != begun
}

// live tells whether a disk is a volume.
func live(d Disk) bool {
	// A tag can be written by anybody who may use the account, so a name is checked.
	return d.Tags[tagTrashed] == "" && d.Tags[tagTemp] == "" && d.State != Deleting && d.State != Failed && volume.CheckName(d.Tags[TagName]) == nil
}

// origin returns the UUID to which the snapshots of a disk belong.
func origin(d Disk) string {
	if o := d.Tags[tagOrigin]; o != "" {
		return o
	}
	return d.Tags[TagUUID]
}

func now() string { return time.Now().UTC().Format(time.RFC3339) }

// given returns the options that a disk was made with.
func given(d Disk) map[string]string {
	var opts map[string]string
	for k, v := range d.Tags {
		if name, ok := strings.CutPrefix(k, option); ok {
			if opts == nil {
				opts = map[string]string{}
			}
			opts[name] = v
		}
	}
	return opts
}

// with returns the disk with tags changed.
func (d Disk) with(tags Tags) Disk {
	d.Tags = maps.Clone(d.Tags)
	for k, v := range tags {
		if v == "" {
			delete(d.Tags, k)
		} else {
			d.Tags[k] = v
		}
	}
	return d
}

// uuidOf makes a UUID (version 8, RFC 9562) of parts.
func uuidOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return uuid([16]byte(sum[:16]))
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return uuid(b)
}

func uuid(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// window is for how long two hosts that make a volume of one name come to the same token. After
// it the name may have been removed and made again, which wants another disk.
const window = time.Minute

func windowOf(at time.Time) int64 { return at.Unix() / int64(window/time.Second) }

// token is the UUID of a new disk for a name: the same on all hosts within a window, so that the
// cloud itself keeps the disk from being made twice. Those that were spent are passed over.
func token(namespace, name string, at time.Time, spent int) string {
	return uuidOf("disk", namespace, name, strconv.FormatInt(windowOf(at), 10), strconv.Itoa(spent))
}
