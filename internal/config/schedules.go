package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// schedulesEnv names schedules that are made by the environment alone.
const schedulesEnv = "REMORA_SCHEDULES"

// The types of keys that schedules alone have.
const (
	typeCron   = "cron"
	typeList   = "list"
	typeNumber = "number"
	typeBool   = "true|false"
)

// scheduleKey is a key of a schedule.
type scheduleKey struct {
	Key
	setSchedule func(s *schedule.Schedule, text string) error
}

func scheduleKeys() []scheduleKey {
	keep := func(name, help string, at func(*schedule.Keep) *int) scheduleKey {
		return scheduleKey{Key{Name: name, Type: typeNumber, Default: "0", Help: help}, func(s *schedule.Schedule, text string) error {
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a number such as 7", text)
			}
			*at(&s.Keep) = int(n)
			return nil
		}}
	}
	return []scheduleKey{
		{
			Key{Name: "cron", Type: typeCron, Help: "when: minute, hour, day of the month, month and day of the week, in the host's time zone, or `@hourly`, `@daily`, `@weekly`, `@monthly`; must be given"},
			func(s *schedule.Schedule, text string) (err error) {
				s.Cron, err = schedule.Parse(text)
				return err
			},
		},
		{
			Key{Name: "jitter", Type: typeDuration, Default: "0s", Help: "up to how much later a run begins, so that not all volumes are at it at once; the delay of a volume is always the same"},
			func(s *schedule.Schedule, text string) (err error) {
				s.Jitter, err = parseDuration(text, 0)
				return err
			},
		},
		{
			Key{Name: "pools", Type: typeList, Help: "for which pools, by names or patterns such as `db*`; empty is all where `volumes` is given, and otherwise none"},
			list(func(s *schedule.Schedule) *[]string { return &s.Pools }),
		},
		{
			Key{Name: "volumes", Type: typeList, Help: "for which volumes of these pools, by names or patterns; empty is all where `pools` is given, and otherwise none"},
			list(func(s *schedule.Schedule) *[]string { return &s.Volumes }),
		},
		{
			Key{Name: "backup", Type: typeList, Help: "to which repositories the volumes are backed up, by names; empty is none"},
			func(s *schedule.Schedule, text string) error {
				for _, name := range words(text) {
					if !slices.Contains(s.Tasks, schedule.Task{Repository: name}) {
						s.Tasks = append(s.Tasks, schedule.Task{Repository: name})
					}
				}
				return nil
			},
		},
		{
			// Behind backup, whose tasks it adds to.
			Key{Name: "snapshot", Type: typeBool, Help: "whether snapshots are made; true without `backup`, and false with it"},
			func(s *schedule.Schedule, text string) error {
				on, err := strconv.ParseBool(text)
				switch {
				case err != nil:
					return errdefs.Errorf(errdefs.ErrInvalid, "%q is neither true nor false", text)
				case on:
					s.Tasks = append([]schedule.Task{{}}, s.Tasks...)
				case len(s.Tasks) == 0:
					return errdefs.Errorf(errdefs.ErrInvalid, "false, and no backup either: it would do nothing")
				}
				return nil
			},
		},
		keep("keep_last", "how many of the schedule's youngest snapshots stay, and of its backups in each repository; where all that begin with `keep_` are 0, all stay", func(k *schedule.Keep) *int { return &k.Last }),
		keep("keep_hourly", "of how many hours that have one the youngest stays", func(k *schedule.Keep) *int { return &k.Hourly }),
		keep("keep_daily", "the same of days", func(k *schedule.Keep) *int { return &k.Daily }),
		keep("keep_weekly", "the same of weeks, which begin on Monday", func(k *schedule.Keep) *int { return &k.Weekly }),
		keep("keep_monthly", "the same of months", func(k *schedule.Keep) *int { return &k.Monthly }),
		keep("keep_yearly", "the same of years", func(k *schedule.Keep) *int { return &k.Yearly }),
	}
}

// ScheduleKeys returns the keys of a schedule.
func ScheduleKeys() []Key {
	var keys []Key
	for _, k := range scheduleKeys() {
		keys = append(keys, k.Key)
	}
	return keys
}

// list takes names or patterns with commas or spaces between them.
func list(at func(*schedule.Schedule) *[]string) func(*schedule.Schedule, string) error {
	return func(s *schedule.Schedule, text string) error {
		for _, word := range words(text) {
			if err := schedule.CheckPattern(word); err != nil {
				return err
			}
			*at(s) = append(*at(s), word)
		}
		return nil
	}
}

// schedules reads the tables of the schedules.
func (b *builder) schedules(raw any) error {
	tables, err := b.tables("schedule", "[schedule.nightly]", schedulesEnv, raw)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		at := b.whereTable("schedule."+name, schedulesEnv)
		if err := checkName("schedule", name); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		s, err := b.schedule(name, tables[name])
		if err != nil {
			return err
		}
		if s.Cron == (schedule.Cron{}) {
			return errdefs.Errorf(errdefs.ErrInvalid, `%s: schedule %q: key "cron" is missing: when it is to run, such as "@daily"`, at, name)
		}
		if err := b.checkSchedule(s); err != nil {
			return err
		}
		b.config.Schedules = append(b.config.Schedules, s)
	}
	return b.unknownFlags("schedule")
}

// schedule reads one schedule.
func (b *builder) schedule(name string, table map[string]any) (schedule.Schedule, error) {
	prefix := "schedule." + name + "."
	file := map[string]any{}
	for key, v := range table {
		file[prefix+key] = v
	}
	s := schedule.Schedule{Name: name}
	var known []string
	for _, k := range scheduleKeys() {
		known = append(known, k.Name)
		full := Key{Name: prefix + k.Name, Env: envName(prefix + k.Name), Type: k.Type}
		if k.Type == typeList && file[full.Name] != nil {
			file[full.Name] = joinList(file[full.Name])
		}
		v, err := b.resolve(full, file)
		if err == nil && v.Source != "default" {
			err = k.setSchedule(&s, v.Value)
			b.config.values = append(b.config.values, v)
		}
		if err != nil {
			return s, b.wrong(v.Key, v.Source, err)
		}
		delete(file, full.Name)
	}
	for _, full := range b.inOrder(file) {
		key := strings.TrimPrefix(full, prefix)
		return s, errdefs.Errorf(errdefs.ErrInvalid, "%s: schedule %q: unknown key %q%s", b.where(full), name, key, near(key, known))
	}
	return s, nil
}

// checkSchedule refuses a schedule that means a repository or a pool that there is not.
func (b *builder) checkSchedule(s schedule.Schedule) error {
	var names []string
	for _, t := range s.Tasks {
		if t.Repository != "" {
			names = append(names, t.Repository)
		}
	}
	prefix := "schedule." + s.Name + "."
	if err := b.known(prefix+"backup", "repository", names, b.repositoryNames()); err != nil {
		return err
	}
	return b.known(prefix+"pools", "pool", s.Pools, b.poolNames())
}

// known refuses a name that is none of those that there are. A pattern may mean nothing yet.
func (b *builder) known(key, what string, words, names []string) error {
	for _, word := range words {
		if strings.ContainsAny(word, `*?[\`) || slices.Contains(names, word) {
			continue
		}
		err := errdefs.Errorf(errdefs.ErrInvalid, "no %s %q, as none is configured", what, word)
		if len(names) > 0 {
			err = errdefs.Errorf(errdefs.ErrInvalid, "no %s %q%s", what, word, near(word, names))
		}
		i := slices.IndexFunc(b.config.values, func(v Value) bool { return v.Key == key })
		return b.wrong(key, b.config.values[i].Source, err)
	}
	return nil
}

func (b *builder) repositoryNames() (names []string) {
	for _, r := range b.config.Repositories {
		names = append(names, r.Name)
	}
	return names
}

func (b *builder) poolNames() (names []string) {
	for _, p := range b.config.Pools {
		names = append(names, p.Name)
	}
	return names
}

// joinList makes one text of a list of names, as a variable has them.
func joinList(v any) any {
	all, ok := v.([]any)
	if !ok {
		return v
	}
	var texts []string
	for _, x := range all {
		text, ok := x.(string)
		if !ok {
			return v
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
