"""The kernel manager for papermill: kernels of this interpreter, forked by a `KernelServer` where there is one."""

import os

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner

from icd_lib.execute.kernel_server import ENVIRONMENT, KernelServer


def own_kernel(scratch: str, server: KernelServer | None = None) -> type:
    """A kernel manager class whose `python3` is this interpreter, whatever kernels are installed on the machine."""

    class ThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            given = get_kernel_dict()
            argv = ["icd_lib.execute.kernel" if word == "ipykernel_launcher" else word for word in given["argv"]]
            # IPYTHONDIR: a person's start-up files must not reach a run.
            return KernelSpec(**given | {"argv": argv}, env=ENVIRONMENT | {"IPYTHONDIR": scratch})

    class ForkingProvisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **kwargs) -> dict:
            assert server is not None
            self.cwd = kwargs.get("cwd") or os.getcwd()
            self.process = server.fork(cmd[cmd.index("-m") + 1 :], kwargs["env"], self.cwd)
            self.pid = self.process.pid
            self.pgid = os.getpgid(self.pid)
            return self.connection_info

    class OwnKernelManager(AsyncKernelManager):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            # Not in Jupyter's runtime folder: it lies in the user's home, which may be missing or not writable.
            self.connection_file = os.path.join(scratch, "kernel.json")
            if server is not None:
                self.provisioner = ForkingProvisioner(kernel_spec=self.kernel_spec, parent=self)

        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return ThisInterpreter(parent=self)

        def _transport_encryption_default(self) -> str:
            return "auto"  # other people on this machine cannot listen in where pyzmq can encrypt

    return OwnKernelManager
