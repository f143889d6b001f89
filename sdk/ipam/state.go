package ipam

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/statedir"
)

// State is where an [Allocator] remembers: one text for each pool, replaced as a whole.
// Calls for one key do not overlap. [Dir] is one.
type State interface {
	// Load returns every text by its key.
	Load(ctx context.Context) (map[string][]byte, error)
	// Save replaces the text of a key, and returns when it would survive a crash.
	Save(ctx context.Context, key string, data []byte) error
	// Delete forgets a key; one that is not there succeeds.
	Delete(ctx context.Context, key string) error
}

// Dir keeps one JSON file of mode 0600 for each pool in the directory at path, which is
// absolute and is made with mode 0700. It belongs to one Allocator alone, and should
// survive a reboot, as the engine's own networks do.
func Dir(path string) State { return statedir.New(path) }

// poolVersion is the version of the text of a pool.
const poolVersion = 1

// poolRecord is what is remembered of a pool. It is replaced, never changed.
type poolRecord struct {
	Version int
	ID      string
	Space   string
	Prefix  netip.Prefix
	SubPool netip.Prefix
	Used    ranges `json:",omitempty"`
	// Stale are those of Used that nobody has claimed since the pool was requested again.
	Stale ranges `json:"-"`
}

// save writes r down, if there is a State.
func (a *Allocator) save(ctx context.Context, r poolRecord) error {
	if a.config.State == nil {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return a.config.State.Save(ctx, r.ID, append(text, '\n'))
}

// load reads every pool.
func load(ctx context.Context, s State) ([]poolRecord, error) {
	texts, err := s.Load(ctx)
	if err != nil {
		return nil, err
	}
	var records []poolRecord
	for key, text := range texts {
		var r poolRecord
		err := json.Unmarshal(text, &r)
		switch {
		case err != nil:
		case r.Version != poolVersion:
			err = fmt.Errorf("version %d, this program reads %d", r.Version, poolVersion)
		case r.ID != key || !r.Prefix.IsValid():
			err = fmt.Errorf("it is of pool %.60q", r.ID)
		default:
			err = r.Used.check(r.Prefix)
		}
		if err != nil {
			return nil, errdefs.Hint(fmt.Errorf("state of pool %s: %w", key, err),
				"the state was changed from outside, or belongs to another version; remove this entry and the network that has the pool to go on")
		}
		records = append(records, r)
	}
	return records, nil
}

// check refuses a set that is not in order, or not of the pool.
func (r ranges) check(p netip.Prefix) error {
	for i, s := range r {
		if !p.Contains(s.lo) || !p.Contains(s.hi) || i > 0 && !r[i-1].hi.Next().Less(s.lo) {
			return fmt.Errorf("addresses %s to %s are not in order, or not in %s", s.lo, s.hi, p)
		}
	}
	return nil
}
