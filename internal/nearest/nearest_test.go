package nearest

import "testing"

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"put", "put", 0}, {"ptu", "put", 1}, {"pu", "put", 1}, {"putt", "put", 1}, {"pit", "put", 1}, {"", "abc", 3}, {"statsu", "status", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestName(t *testing.T) {
	names := []string{"get", "put", "status", "member"}
	for word, want := range map[string]string{"ptu": "put", "stat": "status", "mem": "member", "xyz": "", "": "", "statsu": "status"} {
		if got := Name(word, names, max(1, len(word)/3)); got != want {
			t.Errorf("Name(%q) = %q, want %q", word, got, want)
		}
	}
}
