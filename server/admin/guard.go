package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"

	"github.com/proa-kv/proa/access"
)

// guard asks callers who they are, by HTTP's basic authentication (RFC 7617).
type guard struct {
	authorize func(ctx context.Context, user, password, address string) (*access.Permit, error) // nil: nobody is asked
}

// only has h serve callers with rights of the cluster.
func (g guard) only(need access.Rights, h http.HandlerFunc) http.Handler {
	if g.authorize == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		permit, err := g.authorize(r.Context(), user, password, r.RemoteAddr)
		var slow *access.SlowDownError
		switch {
		case errors.As(err, &slow):
			w.Header().Set("Retry-After", fmt.Sprint(int(math.Ceil(slow.After.Seconds()))))
			http.Error(w, err.Error(), http.StatusTooManyRequests)
		case errors.Is(err, access.ErrCrowded), errors.Is(err, access.ErrNoUsers), errors.Is(err, context.DeadlineExceeded):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case err != nil:
			w.Header().Set("WWW-Authenticate", `Basic realm="proa"`)
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case !permit.Can(need):
			http.Error(w, fmt.Sprintf("user %s may not see this: it takes the right %v", user, need), http.StatusForbidden)
		default:
			h(w, r)
		}
	})
}
