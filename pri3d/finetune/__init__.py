"""Finetuning on labelled images: semantic segmentation, detection and instance segmentation.

One module a part:

    samples    images with labels or objects, changed at random, in a seeded order
    semseg     a UNet or DeepLabV3, its loss and its predictions
    insseg     Mask R-CNN, its losses and its predictions
    starts     what the networks start from
    train      the training loop
    measure    a trained network on the validation split: figures, pictures, benchmark files
    coco       objects in COCO's format, and pycocotools' figures
    probe      what frozen features know of the classes, without training
    predict    a trained network on any picture
    pictures   predictions beside the truth
"""
