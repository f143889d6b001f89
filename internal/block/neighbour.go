package block

import (
	"strings"
	"sync"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pools are those of this process, by whose volumes they have. Two that have the same would detach
// each other's disks.
var pools struct {
	sync.Mutex
	all map[string]*driver
}

// settle makes the volumes of the namespace this pool's.
func (d *driver) settle(env catalog.Env) error {
	d.pool, d.place = env.PoolName, strings.Join([]string{env.RunDir, d.t.Client.account, d.t.Scope, d.c.Namespace}, "\x00")
	pools.Lock()
	defer pools.Unlock()
	if other := pools.all[d.place]; other != nil && other.pool != d.pool {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "namespace %q: its volumes are those of the pool %q already", d.c.Namespace, other.pool),
			"give each pool of one account its own namespace; options such as type can be given for each volume")
	}
	if pools.all == nil {
		pools.all = map[string]*driver{}
	}
	pools.all[d.place] = d // of one that is opened anew while the old one ends, the younger
	return nil
}

func (d *driver) unsettle() {
	pools.Lock()
	defer pools.Unlock()
	if pools.all[d.place] == d {
		delete(pools.all, d.place)
	}
}
