package environment

import "github.com/proa-kv/proa/raftgroup/dragonboat/environment/workdir"

func init() {
	// dragonboat is initialized: its packages are imported here.
	if err := workdir.Return(); err != nil {
		panic("the working directory is lost: " + err.Error())
	}
}
