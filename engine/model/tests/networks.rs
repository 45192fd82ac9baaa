//! The ResNets are torchvision's, array by array, so that its files start them.
#![allow(clippy::unwrap_used)]

use weir_model::{Network, Start, Weights};

/// (architecture, arrays of torchvision's state_dict without `fc` and counters, numbers that are trained in them).
/// torchvision.models: 11,689,512, 21,797,672 and 25,557,032 parameters, of which `fc` has 513,000 or 2,049,000.
const TORCHVISION: [(&str, usize, usize); 3] = [
    ("resnet18", 100, 11_176_512),
    ("resnet34", 180, 21_284_672),
    ("resnet50", 265, 23_508_032),
];

#[test]
fn resnets_have_torchvisions_arrays() {
    for (arch, arrays, numbers) in TORCHVISION {
        let network = Network::new(arch, 128).unwrap();
        let parameters = network.parameters();
        let own: Vec<_> = parameters
            .iter()
            .filter(|p| !p.name.starts_with("feature."))
            .collect();
        assert_eq!(
            (own.len(), parameters.len()),
            (arrays, arrays + 2),
            "{arch}"
        );
        let trained = own.iter().filter(|p| p.trained);
        let count: usize = trained.map(|p| p.shape.iter().product::<usize>()).sum();
        assert_eq!(count, numbers, "{arch}");
    }
}

#[test]
fn names_and_shapes_are_torchvisions() {
    let shape = |arch: &str, name: &str| {
        let parameters = Network::new(arch, 128).unwrap().parameters();
        let found = parameters.into_iter().find(|p| p.name == name);
        found
            .unwrap_or_else(|| panic!("{arch} has no {name}"))
            .shape
    };
    for (name, wanted) in [
        ("conv1.weight", vec![64, 3, 7, 7]),
        ("bn1.running_var", vec![64]),
        ("layer1.0.conv1.weight", vec![64, 64, 3, 3]),
        ("layer2.0.downsample.0.weight", vec![128, 64, 1, 1]),
        ("layer2.0.downsample.1.running_mean", vec![128]),
        ("layer4.1.bn2.bias", vec![512]),
        ("feature.weight", vec![128, 512]),
    ] {
        assert_eq!(shape("resnet18", name), wanted, "{name}");
    }
    assert_eq!(shape("resnet34", "layer3.5.conv2.weight"), [256, 256, 3, 3]);
    for (name, wanted) in [
        ("layer1.0.conv1.weight", vec![64, 64, 1, 1]),
        ("layer1.0.downsample.0.weight", vec![256, 64, 1, 1]),
        ("layer4.2.conv3.weight", vec![2048, 512, 1, 1]),
        ("feature.weight", vec![128, 2048]),
    ] {
        assert_eq!(shape("resnet50", name), wanted, "{name}");
    }
}

/// As torchvision saves it: with its own classifier and the counters of its normalisations, which are integers.
#[test]
fn a_file_of_torchvisions_starts_a_network() {
    let network = Network::new("resnet18", 128).unwrap();
    let file = Weights::start(&network.parameters(), 9);
    let data: Vec<(String, Vec<usize>, Vec<u8>, safetensors::Dtype)> = file
        .iter()
        .filter(|(name, _)| !name.starts_with("feature."))
        .map(|(name, array)| {
            let bytes = array.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (
                name.to_string(),
                array.shape.clone(),
                bytes,
                safetensors::Dtype::F32,
            )
        })
        .chain([
            (
                "fc.weight".into(),
                vec![10, 512],
                vec![0; 4 * 10 * 512],
                safetensors::Dtype::F32,
            ),
            (
                "fc.bias".into(),
                vec![10],
                vec![0; 40],
                safetensors::Dtype::F32,
            ),
            (
                "bn1.num_batches_tracked".into(),
                vec![],
                vec![0; 8],
                safetensors::Dtype::I64,
            ),
        ])
        .collect();
    let views = data.iter().map(|(name, shape, bytes, kind)| {
        let view = safetensors::tensor::TensorView::new(*kind, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet18.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();

    let init = Weights::load(&path).unwrap();
    let mut started = Weights::start(&network.parameters(), 1);
    let own = started
        .values("feature.weight", &[128, 512])
        .unwrap()
        .to_vec();
    started.extend(init);
    started.check(&network.parameters()).unwrap();
    // The last layer is weir's own and starts at random; all others are the file's.
    let feature = started
        .values("feature.weight", &[128, 512])
        .unwrap()
        .to_vec();
    assert_eq!(feature, own);
    for (name, array) in file
        .iter()
        .filter(|(name, _)| !name.starts_with("feature."))
    {
        assert_eq!(started.get(name).unwrap(), array, "{name}");
    }
}

#[test]
fn a_network_starts_the_same_for_a_seed_and_differs_between_seeds() {
    let parameters = Network::new("small", 128).unwrap().parameters();
    let bytes = |seed| Weights::start(&parameters, seed).to_bytes().unwrap();
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
    assert!(
        parameters
            .iter()
            .any(|p| matches!(p.start, Start::He { .. }))
    );
}
