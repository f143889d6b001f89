package gcepd

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Labels have keys and values of up to 63 lower-case letters, digits, dashes and underscores.
// A tag that is no more than that is a label as it is:
//
//	remora_volume = my_data
//
// Otherwise its value is one of
//
//	x-_4dy-_44ata     each byte that no label may have as _ and two digits, and so _ itself
//	z-9hkn6s…         all bytes in base 32, where that is shorter
//
// in as many labels as it takes: remora_volume, remora_volume--2, remora_volume--3. The dot of a tag's
// key is a dash. A key that is too long for that is part of the value, and its hash is the key.
const (
	prefix    = "remora_"
	maxLabel  = 63
	maxLabels = 64
	maxParts  = 99
)

var (
	plainValue = regexp.MustCompile(`^[a-z0-9_-]*$`)
	part       = regexp.MustCompile(`^(.+)--([2-9]|[1-9][0-9])$`)
	lower32    = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)
)

// encode returns the labels that stand for tags.
func encode(tags block.Tags) map[string]string {
	labels := map[string]string{}
	for key, value := range tags {
		base := prefix + strings.ReplaceAll(key, ".", "-")
		if len(base) > maxLabel-len("--99") || strings.Contains(key, "..") || strings.HasPrefix(key, ".") {
			sum := sha256.Sum256([]byte(key))
			base, value = prefix+"-"+hex.EncodeToString(sum[:8]), key+"="+value
		}
		text := encodeValue(value)
		labels[base] = text[:min(len(text), maxLabel)]
		for n := 2; len(text) > maxLabel; n++ {
			text = text[maxLabel:]
			labels[base+"--"+strconv.Itoa(n)] = text[:min(len(text), maxLabel)]
		}
	}
	return labels
}

func encodeValue(v string) string {
	if plainValue.MatchString(v) && !strings.HasPrefix(v, "x-") && !strings.HasPrefix(v, "z-") {
		return v
	}
	var b strings.Builder
	for i := range len(v) {
		if c := v[i]; c != '_' && plainValue.MatchString(string(rune(c))) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	packed := lower32.EncodeToString([]byte(v))
	if b.Len() > maxLabel-len("x-") && b.Len() > len(packed) {
		return "z-" + packed
	}
	return "x-" + b.String()
}

// decode returns the tags that labels stand for, which are empty for a disk that is not ours.
// What others have put there and nobody can read is left out.
func decode(labels map[string]string) block.Tags {
	tags := block.Tags{}
	for label := range labels {
		key, ours := strings.CutPrefix(label, prefix)
		if !ours || part.MatchString(label) {
			continue
		}
		var text strings.Builder
		text.WriteString(labels[label])
		for n := 2; n <= maxParts; n++ {
			more, ok := labels[label+"--"+strconv.Itoa(n)]
			if !ok {
				break
			}
			text.WriteString(more)
		}
		value, ok := decodeValue(text.String())
		if !ok {
			continue
		}
		key = strings.ReplaceAll(key, "-", ".")
		if strings.HasPrefix(key, ".") {
			if key, value, ok = strings.Cut(value, "="); !ok {
				continue
			}
		}
		tags[key] = value
	}
	return tags
}

func decodeValue(text string) (string, bool) {
	if packed, ok := strings.CutPrefix(text, "z-"); ok {
		b, err := lower32.DecodeString(packed)
		return string(b), err == nil
	}
	escaped, ok := strings.CutPrefix(text, "x-")
	if !ok {
		return text, true
	}
	var b strings.Builder
	for escaped != "" {
		if escaped[0] != '_' {
			b.WriteByte(escaped[0])
			escaped = escaped[1:]
			continue
		}
		if len(escaped) < 3 {
			return "", false
		}
		c, err := hex.DecodeString(escaped[1:3])
		if err != nil {
			return "", false
		}
		b.Write(c)
		escaped = escaped[3:]
	}
	return b.String(), true
}

// relabel changes tags among labels: an empty value takes one away. What others put there stays.
func relabel(labels map[string]string, tags block.Tags) (map[string]string, error) {
	now := decode(labels)
	for k, v := range tags {
		if now[k] = v; v == "" {
			delete(now, k)
		}
	}
	all := maps.Clone(labels)
	maps.DeleteFunc(all, func(k, _ string) bool { return strings.HasPrefix(k, prefix) })
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, encode(now))
	return all, checkLabels(all)
}

// labelsOf returns the labels of something new, with those that the pool adds.
func (c config) labelsOf(tags block.Tags) (map[string]string, error) {
	all := c.own()
	maps.Copy(all, encode(tags))
	return all, checkLabels(all)
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%d labels would be needed, and Google allows %d", len(labels), maxLabels),
			"shorter names and options need fewer; capitals and other signs need more")
	}
	return nil
}

// nameIs is the filter for a volume's name. Of one in several labels it compares the first.
func nameIs(name string) string {
	text := encodeValue(name)
	return labelIs(block.TagName, text[:min(len(text), maxLabel)])
}

func labelIs(key, text string) string { return fmt.Sprintf(`(labels.%s%s = "%s")`, prefix, key, text) }
