package quirk

import (
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// asDriver begins a word that stands for all quirks of a driver of the table, for one that was given another name.
const asDriver = "as:"

// Parse reads what the key "quirks" of a pool says: "NAME" is a quirk that the driver has, "-NAME" one that it
// has not whatever the table says, and "as:DRIVER" all that the table says of a driver.
func Parse(words []string) (Set, error) {
	s := Set{without: map[ID]bool{}}
	for _, word := range words {
		if driver, ok := strings.CutPrefix(word, asDriver); ok {
			if len(For(driver, "").entries) == 0 {
				return Set{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "quirk %q: nothing is known of a driver %q", word, driver),
					"there are: "+strings.Join(Drivers(), ", "))
			}
			s.as = append(s.as, driver)
			continue
		}
		name, not := strings.CutPrefix(word, "-")
		k, ok := kinds[ID(name)]
		switch {
		case !ok:
			return Set{}, errdefs.Hint(catalog.Unknown("quirk", name, names()), `"-" in front takes one away, "as:DRIVER" takes over those of a driver`)
		case not:
			s.without[ID(name)] = true
		case k.particular:
			return Set{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "quirk %q: says nothing without its driver", word), `write "as:DRIVER"`)
		default:
			s.entries = append(s.entries, Entry{Driver: "*", ID: ID(name), Source: "the pool"})
		}
	}
	return s, nil
}

func names() []string {
	all := make([]string, 0, len(kinds))
	for id := range maps.Keys(kinds) {
		all = append(all, string(id))
	}
	slices.Sort(all)
	return all
}

// Drivers returns the names of the drivers in the table.
func Drivers() []string {
	var all []string
	for _, e := range Table() {
		all = append(all, e.Driver)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Table returns all that is known, by driver.
func Table() []Entry { return slices.Concat(clouds, files, arrays) }
