package config

// Table is a kind of table of which a configuration has any number, each with a name, such
// as [pool.fast].
type Table struct {
	// Kind is "pool", "repository", "schedule" or "verify".
	Kind string
	// Names is the variable that makes such tables without a file.
	Names string
	// Keys are what may stand in one. For a pool, the keys of its driver come on top.
	Keys []Key
}

// Tables returns the kinds of tables that can be made by the environment alone.
func Tables() []Table {
	driver := Key{Name: "driver", Type: typeText, Default: DefaultDriver, Help: "the driver"}
	return []Table{
		{"pool", poolsEnv, append([]Key{driver}, PoolKeys()...)},
		{"repository", repositoriesEnv, RepositoryKeys()},
		{"schedule", schedulesEnv, ScheduleKeys()},
		{"verify", verifiesEnv, VerifyKeys()},
	}
}

// Variable returns the variable that stands for a key of the table of that name.
func (t Table) Variable(name, key string) string { return envName(t.Kind + "." + name + "." + key) }
