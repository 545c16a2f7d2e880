package api

import (
	"io"
	"net/http"
	"time"
)

// uploadPause is how long nothing of a body may come.
const uploadPause = 30 * time.Second

// Upload returns the body of a request of any length, which fails once nothing
// of it comes for a while.
func Upload(w http.ResponseWriter, r *http.Request) io.Reader {
	return upload{r.Body, http.NewResponseController(w)}
}

type upload struct {
	body io.Reader
	ctrl *http.ResponseController
}

func (u upload) Read(p []byte) (int, error) {
	_ = u.ctrl.SetReadDeadline(time.Now().Add(uploadPause)) // net/http takes it back at the body's end
	return u.body.Read(p)
}
