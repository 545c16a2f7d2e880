package fetch

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/decant-project/decant"
)

// Deb is a Debian package as apt gets it, from the sources that the machine
// has, in folders of its own: nothing is installed and no root is needed.
type Deb struct{ Package string }

func (d Deb) String() string { return "Debian package " + d.Package }

func (d Deb) each(ctx context.Context, p *progress, dir string, names []string, put func(string, io.Reader) error) error {
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return fault(err)
		}
	}
	stop := p.watch(d.String(), dir, -1)
	err := d.download(ctx, dir)
	stop()
	if err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) != 1 {
		return decant.Errorf(decant.NotFound, "apt-get left no package")
	}
	return readDeb(ctx, debs[0], names, put)
}

func (d Deb) download(ctx context.Context, dir string) error {
	options := []string{
		"-q", "-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir,
		"-o", "APT::Sandbox::User=root", // the folders are ours alone
	}
	if err := run(ctx, dir, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	return run(ctx, dir, "apt-get", append(options, "download", d.Package)...)
}

// readDeb reads a package's files as a stream; nothing of it is unpacked.
func readDeb(ctx context.Context, path string, names []string, put func(string, io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", path)
	tarball, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return missing("dpkg-deb", err)
	}
	err = untar(tarball, names, put)
	cancel() // it may have more to say than was read
	_ = cmd.Wait()
	return err
}
