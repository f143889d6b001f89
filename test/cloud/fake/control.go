package fake

import (
	"encoding/json"
	"net/http"
	"time"
)

// Control lets another process see the counters, set faults and move the clock:
//
//	GET    /counts                the counters by kind of call
//	DELETE /counts                set them to zero
//	POST   /faults                add the Fault in the body
//	DELETE /faults                take all away
//	POST   /advance?by=DURATION   move a manual clock
//
// It belongs on an address of its own, for no cloud has such calls.
func Control(calls *Calls, clock Clock) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, r *http.Request) {
		JSON(w, http.StatusOK, calls.Counts())
	})
	mux.HandleFunc("DELETE /counts", func(w http.ResponseWriter, r *http.Request) {
		calls.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		switch f.What {
		case Hang, HangAfter, Fail, Lose, Throttle, Errored:
		default:
			http.Error(w, "no fault is called "+f.What, http.StatusBadRequest)
			return
		}
		calls.Add(f)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, r *http.Request) {
		calls.Clear()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /advance", func(w http.ResponseWriter, r *http.Request) {
		by, err := time.ParseDuration(r.FormValue("by"))
		manual, ok := clock.(*Manual)
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case !ok:
			http.Error(w, "the clock is the machine's own", http.StatusConflict)
		default:
			manual.Advance(by)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	return mux
}

// JSON answers with a value.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a caller that hung up is no concern of ours
}
