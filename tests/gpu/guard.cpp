// What torch asks for before it touches a CUDA tensor: which device is current. This one only remembers a number.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {
using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

thread_local DeviceIndex current = 0;

struct PretendedGuard final : c10::impl::DeviceGuardImplInterface {
  static Device cuda(DeviceIndex index) { return Device(DeviceType::CUDA, index); }
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device device) const override {
    const Device before = cuda(current);
    current = device.index();
    return before;
  }
  Device getDevice() const override { return cuda(current); }
  void setDevice(Device device) const override { current = device.index(); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  Stream getStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream getNewStream(Device device, int = 0) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 2; }
};

PretendedGuard guard;
const bool registered = (c10::impl::registerDeviceGuard(DeviceType::CUDA, &guard), true);
}  // namespace

extern "C" void select_device(int index) { current = static_cast<DeviceIndex>(index); }
