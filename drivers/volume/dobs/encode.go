package dobs

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/block"
)

// DigitalOcean has no keys and values: a tag is one word of letters, digits, colons, dashes and
// underscores, up to 255 of them, that is spelt the same for the whole account whoever spells it
// otherwise: "Data" and "data" are one tag. So one of ours is
//
//	remora:KEY:VALUE[:uCAPITALS][:pPART-OF][:rREVISION]
//
// In KEY a dash stands for a dot. In VALUE what a tag cannot have is a colon and two hexadecimal
// digits for each byte. CAPITALS are hexadecimal digits with a bit for each letter of VALUE, the
// first one highest, zeros at the end left out; without it there are none. A value that is too long
// has several tags. One that takes the place of another has the next revision: the new one is
// written before the old one is taken away, and where both are there the higher one counts.
//
//	remora:volume:Pg_Data:ua        "Pg_Data"
//	remora:o-mount_options:noatime:2cdiscard
const (
	prefix = "remora:"
	maxTag = 255
	// fixed is what a tag has besides key, value and capitals, at most: ":u", ":p99-99",
	// ":r999999" and the colon after the key.
	fixed = len(prefix) + 1 + 2 + 7 + 8
)

var tagForm = regexp.MustCompile(`^remora:([a-z0-9_-]+):((?:[a-z0-9_-]|:[0-9a-f]{2})*)(?::u([0-9a-f]+))?(?::p(\d{1,2})-(\d{1,2}))?(?::r(\d{1,6}))?$`)

// piece is what one tag says.
type piece struct {
	tag           string
	value         string
	part, of, rev int
}

// encode returns the tags for a value.
func encode(key, value string, rev int) []string {
	head := prefix + strings.ReplaceAll(key, ".", "-") + ":"
	room := (maxTag - fixed - len(key)) * 4 / 5 // of which each letter has a quarter of a digit
	var parts []string
	from, used := 0, 0
	for i := range len(value) {
		width := 1
		if !plain(value[i]) {
			width = 3
		}
		if used+width > room {
			parts, from, used = append(parts, value[from:i]), i, 0
		}
		used += width
	}
	parts = append(parts, value[from:])
	tail := ""
	if rev > 1 {
		tail = ":r" + strconv.Itoa(rev)
	}
	tags := make([]string, len(parts))
	for i, part := range parts {
		tags[i] = head + spell(part)
		if len(parts) > 1 {
			tags[i] += fmt.Sprintf(":p%d-%d", i+1, len(parts))
		}
		tags[i] += tail
	}
	return tags
}

func letter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

func plain(b byte) bool { return letter(b) || b >= '0' && b <= '9' || b == '-' || b == '_' }

// spell writes a value, and which of its letters are capitals.
func spell(value string) string {
	var text strings.Builder
	var bits []byte
	n := 0
	for i := range len(value) {
		b := value[i]
		if !plain(b) {
			fmt.Fprintf(&text, ":%02x", b)
			continue
		}
		text.WriteByte(b)
		if !letter(b) {
			continue
		}
		if n%4 == 0 {
			bits = append(bits, 0)
		}
		if b < 'a' {
			bits[n/4] |= 8 >> (n % 4)
		}
		n++
	}
	var digits strings.Builder
	for _, b := range bits {
		digits.WriteString(strconv.FormatUint(uint64(b), 16))
	}
	if capitals := strings.TrimRight(digits.String(), "0"); capitals != "" {
		return text.String() + ":u" + capitals
	}
	return text.String()
}

// parse reads a tag. It is false for one that is not ours.
func parse(tag string) (key string, p piece, ok bool) {
	m := tagForm.FindStringSubmatch(strings.ToLower(tag))
	if m == nil {
		return "", p, false
	}
	p = piece{tag: tag, part: 1, of: 1, rev: 1}
	if m[4] != "" {
		p.part, _ = strconv.Atoi(m[4])
		p.of, _ = strconv.Atoi(m[5])
	}
	if m[6] != "" {
		p.rev, _ = strconv.Atoi(m[6])
	}
	var value []byte
	n := 0
	for text := m[2]; text != ""; {
		b, size := text[0], 1
		switch {
		case b == ':':
			hex, _ := strconv.ParseUint(text[1:3], 16, 8) // the form has seen to it
			b, size = byte(hex), 3
		case letter(b):
			if n/4 < len(m[3]) {
				if bits, _ := strconv.ParseUint(m[3][n/4:n/4+1], 16, 8); bits&(8>>(n%4)) != 0 {
					b -= 'a' - 'A'
				}
			}
			n++
		}
		value, text = append(value, b), text[size:]
	}
	p.value = string(value)
	return strings.ReplaceAll(m[1], "-", "."), p, true
}

// read returns what our tags among those of a volume or snapshot say.
func read(tags []string) block.Tags {
	all := block.Tags{}
	for key, pieces := range group(tags) {
		if value, _, ok := current(pieces); ok {
			all[key] = value
		}
	}
	return all
}

func group(tags []string) map[string][]piece {
	all := map[string][]piece{}
	for _, tag := range tags {
		if key, p, ok := parse(tag); ok {
			all[key] = append(all[key], p)
		}
	}
	return all
}

// current returns the value of the highest revision of which no part is missing, and its number.
func current(pieces []piece) (value string, rev int, ok bool) {
	revs := map[int][]piece{}
	for _, p := range pieces {
		revs[p.rev] = append(revs[p.rev], p)
	}
	for _, rev := range slices.Backward(slices.Sorted(maps.Keys(revs))) {
		if value, ok := whole(revs[rev]); ok {
			return value, rev, true
		}
	}
	return "", 0, false
}

// whole puts the parts of a value together. Should there be two of one number, all hosts take the
// same.
func whole(pieces []piece) (string, bool) {
	slices.SortFunc(pieces, func(a, b piece) int { return strings.Compare(a.tag, b.tag) })
	var value strings.Builder
	for n := range pieces[0].of {
		i := slices.IndexFunc(pieces, func(p piece) bool { return p.part == n+1 && p.of == pieces[0].of })
		if i < 0 {
			return "", false
		}
		value.WriteString(pieces[i].value)
	}
	return value.String(), true
}

// change returns which tags something lacks that has those of now, and which it has too many, to
// have what set says.
func change(now []string, set block.Tags) (add, remove []string) {
	there := group(now)
	// What makes a disk ours comes last: one whose other tags are not there yet is nobody's.
	keys := slices.SortedFunc(maps.Keys(set), func(a, b string) int {
		if (a == block.TagNamespace) != (b == block.TagNamespace) {
			if a == block.TagNamespace {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys {
		value, rev, is := current(there[key])
		stays := is && value == set[key] && value != ""
		highest := 0
		for _, p := range there[key] {
			highest = max(highest, p.rev)
			if !stays || p.rev != rev {
				remove = append(remove, p.tag)
			}
		}
		if !stays && set[key] != "" {
			add = append(add, encode(key, set[key], highest+1)...)
		}
	}
	return add, remove
}

// all returns the tags of something new. Labels of a snapshot may be empty.
func all(tags block.Tags) (list []string) {
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, encode(key, tags[key], 1)...)
	}
	return list
}
